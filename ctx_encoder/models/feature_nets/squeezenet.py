"""SqueezeNet 1.1's convolutions.

References: Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters
  and < 0.5MB model size, arXiv 1602.07360, 2016; version 1.1 is of its repository.
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

_FIRST = 64  # channels of the first convolution

# Channels that a fire module squeezes to, and that each of its two branches gives.
_FIRES = {
  "fire2": (16, 64),
  "fire3": (16, 64),
  "fire4": (32, 128),
  "fire5": (32, 128),
  "fire6": (48, 192),
  "fire7": (48, 192),
  "fire8": (64, 256),
  "fire9": (64, 256),
}


class Fire(nn.Module):
  """Squeezes channels, then joins what a 1x1 and a 3x3 convolution make of them."""

  squeeze: int
  expand: int
  settings: Settings = Settings()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    def stage(name, features, kernel):
      stage = Stage(features, kernel=kernel, stride=1, then=("relu",))
      return ConvStage(stage, self.settings, name=name)

    x = stage("squeeze", self.squeeze, 1)(x)
    branches = stage("expand1x1", self.expand, 1), stage("expand3x3", self.expand, 3)
    return jnp.concatenate([branch(x) for branch in branches], axis=3)


class SqueezeNet(nn.Module):
  """SqueezeNet 1.1 without its classifier.

  Layers are relu1, pool1, fire2, fire3, pool3, fire4, fire5, pool5 and fire6 to fire9.
  Called with `[B, H, W, 3]` as `vgg.torchvision_input` prepares them, and the layers to
  tap; returns `{layer: [B, h, w, C]}`. Nothing behind the deepest tap is computed, nor
  are its parameters needed.
  """

  dtype: Any = jnp.float32

  @property
  def layers(self) -> tuple[str, ...]:
    return (
      *("relu1", "pool1", "fire2", "fire3", "pool3", "fire4", "fire5", "pool5"),
      *("fire6", "fire7", "fire8", "fire9"),
    )

  @property
  def convolutions(self) -> tuple[Convolution, ...]:
    first = Convolution("relu1", ("conv1", "conv"), (3, 3, 3, _FIRST), "features.0")
    found, inputs = [first], _FIRST
    # torchvision counts the first convolution's ReLU too.
    for number, layer in enumerate(self.layers, start=1):
      if layer not in _FIRES:
        continue
      squeeze, expand = _FIRES[layer]
      shapes = {
        "squeeze": (1, 1, inputs, squeeze),
        "expand1x1": (1, 1, squeeze, expand),
        "expand3x3": (3, 3, squeeze, expand),
      }
      for name, shape in shapes.items():
        torchvision = f"features.{number}.{name}"
        found.append(Convolution(layer, (layer, name, "conv"), shape, torchvision))
      inputs = 2 * expand
    return tuple(found)

  @nn.compact
  def __call__(self, x: jax.Array, taps: Sequence[str]) -> Features:
    settings, features = Settings(dtype=self.dtype), {}
    for layer in layers_to(self.layers, taps):
      if layer in _FIRES:
        x = Fire(*_FIRES[layer], settings, name=layer)(x)
      elif layer == "relu1":
        stage = Stage(_FIRST, kernel=3, stride=2, padding="VALID", then=("relu",))
        x = ConvStage(stage, settings, name="conv1")(large_enough(x, 3, layer))
      else:
        x = _pool(large_enough(x, 3, layer))
      features[layer] = x
    return {tap: features[tap] for tap in taps}


def _pool(x: jax.Array) -> jax.Array:
  """Maximum of 3x3 pixels at stride 2, also where the last window is cut off."""
  rest = [(0, (size - 3) % 2) for size in x.shape[1:3]]
  x = jnp.pad(x, [(0, 0), *rest, (0, 0)], constant_values=-jnp.inf)
  return conv.max_pool(x, 3, 2, "VALID")
