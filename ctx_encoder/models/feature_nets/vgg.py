"""The convolutions of VGG-16 and VGG-19.

References: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale
  Image Recognition, ICLR 2015, table 1 (D and E).
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models.feature_nets import network
from ctx_encoder.models.feature_nets.network import Convolution, Features

_BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions in each, by depth
_CHANNELS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
  """VGG without its dense layers; see `FeatureNetwork` for the call.

  Layers are called `relu{block}_{i}` (a convolution and its ReLU, from relu1_1 on) and
  `pool{block}`.
  """

  depth: int = 16
  dtype: Any = jnp.float32

  @property
  def layers(self) -> tuple[str, ...]:
    if self.depth not in _BLOCKS:
      raise ValueError(f"VGG has a depth of 16 or 19, not {self.depth}.")
    names = []
    for block, count in enumerate(_BLOCKS[self.depth], start=1):
      names += [f"relu{block}_{i + 1}" for i in range(count)] + [f"pool{block}"]
    return tuple(names)

  @property
  def convolutions(self) -> tuple[Convolution, ...]:
    found, inputs = [], 3
    for number, layer in enumerate(self.layers):
      if layer.startswith("relu"):
        block, i = layer.removeprefix("relu").split("_")
        outputs = _CHANNELS[int(block) - 1]
        path = (f"conv{block}_{i}", "conv")
        torchvision = f"features.{number + len(found)}"  # each ReLU has a number too
        keras = f"block{block}_conv{i}"
        shape = (3, 3, inputs, outputs)
        found.append(Convolution(layer, path, shape, torchvision, keras))
        inputs = outputs
    return tuple(found)

  @nn.compact
  def __call__(self, x: jax.Array, taps: Sequence[str]) -> Features:
    layers: dict[str, network.Layer] = {
      layer: functools.partial(network.pool, window=2, layer=layer)
      for layer in self.layers
    }
    for layer, path, shape, *_ in self.convolutions:
      layers[layer] = network.conv_relu(shape[3], 3, self.dtype, path[0])
    return network.apply_layers(layers, x, taps)
