"""AlexNet's convolutions, as torchvision has them: one tower, no normalisation.

References: Krizhevsky, One weird trick for parallelizing convolutional neural networks,
  arXiv 1404.5997, 2014.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models.feature_nets.vgg import (
  Convolution,
  Features,
  large_enough,
  layers_to,
)
from ctx_encoder.models.layers import ConvStage, Settings, Stage
from ctx_encoder.models.ops import conv

_STAGES = {
  "relu1": Stage(64, kernel=11, stride=4, padding="VALID", then=("relu",)),
  "relu2": Stage(192, kernel=5, stride=1, then=("relu",)),
  "relu3": Stage(384, kernel=3, stride=1, then=("relu",)),
  "relu4": Stage(256, kernel=3, stride=1, then=("relu",)),
  "relu5": Stage(256, kernel=3, stride=1, then=("relu",)),
}
_TORCHVISION = {"relu1": 0, "relu2": 3, "relu3": 6, "relu4": 8, "relu5": 10}


class AlexNet(nn.Module):
  """AlexNet without its dense layers.

  Layers are relu1, pool1, relu2, pool2, relu3, relu4, relu5 and pool5; relu{i} is a
  convolution and its ReLU. Called with `[B, H, W, 3]` as `vgg.torchvision_input`
  prepares them, and the layers to tap; returns `{layer: [B, h, w, C]}`. Nothing behind
  the deepest tap is computed, nor are its parameters needed.
  """

  dtype: Any = jnp.float32

  @property
  def layers(self) -> tuple[str, ...]:
    return ("relu1", "pool1", "relu2", "pool2", "relu3", "relu4", "relu5", "pool5")

  @property
  def convolutions(self) -> tuple[Convolution, ...]:
    found, inputs = [], 3
    for layer, stage in _STAGES.items():
      path = (f"conv{layer[-1]}", "conv")
      shape = (stage.kernel, stage.kernel, inputs, stage.features)
      found.append(Convolution(layer, path, shape, f"features.{_TORCHVISION[layer]}"))
      inputs = stage.features
    return tuple(found)

  @nn.compact
  def __call__(self, x: jax.Array, taps: Sequence[str]) -> Features:
    features, settings = {}, Settings(dtype=self.dtype)
    x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))  # the first convolution's
    x = large_enough(x, _STAGES["relu1"].kernel, "relu1")
    for layer in layers_to(self.layers, taps):
      if layer in _STAGES:
        x = ConvStage(_STAGES[layer], settings, name=f"conv{layer[-1]}")(x)
      else:
        x = conv.max_pool(large_enough(x, 3, layer), 3, 2, "VALID")
      features[layer] = x
    return {tap: features[tap] for tap in taps}
