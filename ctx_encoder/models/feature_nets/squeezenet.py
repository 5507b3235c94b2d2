"""SqueezeNet 1.1's convolutions.

References: Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters
  and < 0.5MB model size, arXiv 1602.07360, 2016; version 1.1 is in its repository.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models.feature_nets import network
from ctx_encoder.models.feature_nets.network import Convolution, Features

_FIRST = 64  # channels of the first convolution

# {layer: (channels of the squeeze convolution, channels of each of the two branches)}
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
  """A 1x1 convolution to few channels, then a 1x1 and a 3x3 one, concatenated."""

  squeeze: int
  expand: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = network.conv_relu(self.squeeze, 1, self.dtype, "squeeze")(x)
    branches = (
      network.conv_relu(self.expand, side, self.dtype, f"expand{side}x{side}")
      for side in (1, 3)
    )
    return jnp.concatenate([branch(x) for branch in branches], axis=3)


class SqueezeNet(nn.Module):
  """SqueezeNet 1.1 without its classifier; see `FeatureNetwork` for the call."""

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
    # torchvision numbers the first ReLU too.
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
    first = network.conv_relu(_FIRST, 3, self.dtype, "conv1", 2, "VALID")
    layers: dict[str, network.Layer] = {
      layer: functools.partial(_pool, layer=layer) for layer in self.layers
    }
    layers["relu1"] = lambda x: first(network.large_enough(x, 3, "relu1"))
    for layer, channels in _FIRES.items():
      layers[layer] = Fire(*channels, self.dtype, name=layer)
    return network.apply_layers(layers, x, taps)


def _pool(x: jax.Array, layer: str) -> jax.Array:
  """Maximum over 3x3 pixels at stride 2; the last window may reach past the border."""
  network.large_enough(x, 3, layer)
  rest = [(0, (size - 3) % 2) for size in x.shape[1:3]]
  x = jnp.pad(x, [(0, 0), *rest, (0, 0)], constant_values=-jnp.inf)
  return network.pool(x, 3, layer)
