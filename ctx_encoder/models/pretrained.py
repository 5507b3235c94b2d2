"""Encoders that were trained on ImageNet, for transfer learning.

The report planned it with VGG-16 and lacked the memory.
"""

from typing import Any

import flax.linen as nn
import jax

from ctx_encoder.models.feature_nets import vgg
from ctx_encoder.models.feature_nets.alexnet import AlexNet
from ctx_encoder.models.feature_nets.vgg import VGG, FeatureNetwork, Weights
from ctx_encoder.models.layers import Settings

_NETWORKS = {"vgg16": VGG, "alexnet": AlexNet}
_LAST = "pool5"  # of either


class PretrainedEncoder(nn.Module):
  """All convolutions of a published network: `[B, S, S, 3]` to `[B, s, s, C]`.

  Images are in [-1, 1] and are prepared as the network's weights need it. VGG-16 gives
  512 channels of S / 32 pixels a side; AlexNet 256 channels, of 3 pixels for S = 128,
  and takes none of less than 63. The width of `settings` does not apply. A frozen
  encoder gets no gradient, and its parameters no updates: see `Generator.reached`.
  """

  network_name: str
  frozen: bool = False
  settings: Settings = Settings()

  @property
  def layers(self) -> tuple[str, ...]:
    """Names of the network's layers, in order."""
    network = _NETWORKS[self.network_name](parent=None)  # not a part of this module
    return vgg.layers_to(network.layers, [_LAST])

  def __call__(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    return self.maps(x, train=train, keys=keys)[-1]

  @nn.compact
  def maps(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> list[jax.Array]:
    """Returns the output of every layer."""
    del train, keys
    network = _NETWORKS[self.network_name](dtype=self.settings.dtype, name="network")
    found = network(vgg.torchvision_input((x + 1) / 2), self.layers)
    maps = [found[layer] for layer in self.layers]
    return jax.lax.stop_gradient(maps) if self.frozen else maps

  @nn.nowrap
  def momenta(self) -> dict:
    """Returns the BatchNorm momenta: there are none."""
    return {}

  @nn.nowrap
  def reached(self) -> dict[tuple[str, ...], None]:
    """Returns the parts that training changes, of the parameters it does not whole."""
    if not self.frozen:
      return {}
    return {
      ("network", *convolution.path, name): None
      for convolution in _network(self.network_name).convolutions
      for name in ("kernel", "bias")
    }


def encoder_params(name: str, weights: Weights) -> dict[str, Any]:
  """Returns the parameters of a `PretrainedEncoder`, from published weights.

  Keras's VGG was trained on images prepared in another way. Its first kernel is
  converted to the same values of torchvision's.

  Args:
    name: "vgg16" or "alexnet".
    weights: arrays by their published names, see `weights.load`.

  Raises:
    ValueError: weights are missing or of another shape.
  """
  network = _network(name)
  params = vgg.network_variables(network, weights, [_LAST])["params"]
  if vgg.naming(network, weights) == "keras":
    first = params["conv1_1"]["conv"]
    first["kernel"], first["bias"] = vgg.for_torchvision_input(**first)
  return {"network": params}


def _network(name: str) -> FeatureNetwork:
  return _NETWORKS[name]()
