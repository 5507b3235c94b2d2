"""AlexNet's convolutions, as in torchvision: one tower, no normalisation.

References: Krizhevsky, One weird trick for parallelizing convolutional neural networks,
  arXiv 1404.5997, 2014.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models.feature_nets import network
from ctx_encoder.models.feature_nets.network import Convolution, Features

# {layer: (channels, kernel, number in torchvision's `features`)}
_CONVOLUTIONS = {
  "relu1": (64, 11, 0),
  "relu2": (192, 5, 3),
  "relu3": (384, 3, 6),
  "relu4": (256, 3, 8),
  "relu5": (256, 3, 10),
}


class AlexNet(nn.Module):
  """AlexNet without its dense layers; see `FeatureNetwork` for the call.

  relu{i} is a convolution and its ReLU.
  """

  dtype: Any = jnp.float32

  @property
  def layers(self) -> tuple[str, ...]:
    return ("relu1", "pool1", "relu2", "pool2", "relu3", "relu4", "relu5", "pool5")

  @property
  def convolutions(self) -> tuple[Convolution, ...]:
    found, inputs = [], 3
    for layer, (features, kernel, number) in _CONVOLUTIONS.items():
      path, shape = (f"conv{layer[-1]}", "conv"), (kernel, kernel, inputs, features)
      found.append(Convolution(layer, path, shape, f"features.{number}"))
      inputs = features
    return tuple(found)

  @nn.compact
  def __call__(self, x: jax.Array, taps: Sequence[str]) -> Features:
    layers: dict[str, network.Layer] = {
      layer: functools.partial(network.pool, window=3, layer=layer)
      for layer in self.layers
    }
    for layer, (features, kernel, _) in _CONVOLUTIONS.items():
      options = (4, "VALID") if layer == "relu1" else (1, "SAME")
      name = f"conv{layer[-1]}"
      layers[layer] = network.conv_relu(features, kernel, self.dtype, name, *options)
    x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))  # padding of the first convolution
    return network.apply_layers(layers, network.large_enough(x, 11, "relu1"), taps)
