"""Encoders pretrained on ImageNet, for transfer learning."""

from typing import Any

import flax.linen as nn
import jax

from ctx_encoder.config import ENCODER_SIDES
from ctx_encoder.models.feature_nets import network as networks
from ctx_encoder.models.feature_nets.alexnet import AlexNet
from ctx_encoder.models.feature_nets.network import FeatureNetwork, Weights
from ctx_encoder.models.feature_nets.vgg import VGG
from ctx_encoder.models.layers import Settings

_NETWORKS = {"vgg16": VGG, "alexnet": AlexNet}
_LAST = "pool5"  # of both networks


class PretrainedEncoder(nn.Module):
  """All convolutions of a published network: `[B, S, S, 3]` to `[B, s, s, C]`.

  Images are in [-1, 1] and are normalised as the network's weights require. VGG-16
  gives 512 channels with sides of S / 32, AlexNet 256 channels with sides of 3 for
  S = 128; S must be at least `config.ENCODER_SIDES`. The width of `settings` is
  ignored. With `frozen` no gradient flows through it, and its parameters get no
  updates, see `Generator.trainable`.
  """

  network_name: str
  frozen: bool = False
  settings: Settings = Settings()

  @property
  def layers(self) -> tuple[str, ...]:
    """Names of the network's layers, in order."""
    network = _NETWORKS[self.network_name](parent=None)  # not a part of this module
    return networks.layers_to(network.layers, [_LAST])

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
    check_image_size(self.network_name, min(x.shape[1:3]))
    network = _NETWORKS[self.network_name](dtype=self.settings.dtype, name="network")
    found = network(networks.torchvision_input((x + 1) / 2), self.layers)
    maps = [found[layer] for layer in self.layers]
    return jax.lax.stop_gradient(maps) if self.frozen else maps

  @nn.nowrap
  def momenta(self) -> dict:
    """Returns {}: the networks have no BatchNorm."""
    return {}

  @nn.nowrap
  def trainable(self) -> dict[tuple[str, ...], None]:
    """Returns all parameters as frozen, or none; see `Generator.trainable`."""
    if not self.frozen:
      return {}
    return {
      ("network", *convolution.path, name): None
      for convolution in _network(self.network_name).convolutions
      for name in ("kernel", "bias")
    }


def check_image_size(name: str, image_size: int) -> None:
  """Raises ValueError for images that are too small for a pretrained encoder."""
  least = ENCODER_SIDES[name]
  if image_size < least:
    others = [other for other, side in ENCODER_SIDES.items() if side <= image_size]
    raise ValueError(
      f"model.encoder={name} needs images of at least {least} pixels a side, not"
      f" {image_size}: raise data.image_size, or set model.encoder to"
      f" {' or '.join([*others, 'auto'])}."
    )


def encoder_params(name: str, weights: Weights) -> dict[str, Any]:
  """Returns the parameters of a `PretrainedEncoder` from published weights.

  The first kernel of Keras's VGG, trained on differently normalised images, is
  converted for torchvision's normalisation.

  Args:
    name: "vgg16" or "alexnet".
    weights: arrays by their published names, see `weights.load`.

  Raises:
    ValueError: weights are missing or have a wrong shape.
  """
  network = _network(name)
  params = networks.network_variables(network, weights, [_LAST])["params"]
  if networks.naming(network, weights) == "keras":
    first = params["conv1_1"]["conv"]
    first["kernel"], first["bias"] = networks.for_torchvision_input(**first)
  return {"network": params}


def _network(name: str) -> FeatureNetwork:
  return _NETWORKS[name]()
