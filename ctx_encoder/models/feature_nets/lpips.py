"""LPIPS: a perceptual distance from the features of a trained network."""

import functools
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ctx_encoder import pixels, shapes
from ctx_encoder.models.feature_nets.alexnet import AlexNet
from ctx_encoder.models.feature_nets.network import (
  FeatureNetwork,
  Weights,
  network_variables,
)
from ctx_encoder.models.feature_nets.squeezenet import SqueezeNet
from ctx_encoder.models.feature_nets.vgg import VGG

# Scaling of images in [-1, 1] in the published package.
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPSILON = 1e-10


class _Trunk(NamedTuple):
  network: FeatureNetwork
  taps: tuple[str, ...]
  channels: tuple[int, ...]  # of the taps


TRUNKS = {
  "alex": _Trunk(
    AlexNet(),
    ("relu1", "relu2", "relu3", "relu4", "relu5"),
    (64, 192, 384, 256, 256),
  ),
  "squeeze": _Trunk(
    SqueezeNet(),
    ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9"),
    (64, 128, 256, 384, 384, 512, 512),
  ),
  "vgg": _Trunk(
    VGG(16),
    ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    (64, 128, 256, 512, 512),
  ),
}


class Distance(Protocol):
  def __call__(
    self,
    predictions: jax.Array,
    targets: jax.Array,
    region: jax.Array | None = None,
  ) -> jax.Array: ...


def make_lpips(name: str, trunk_weights: Weights, head_weights: Weights) -> Distance:
  """Returns LPIPS as a function of images, as version 0.1 of the published package.

  With f_l the features of layer l, divided by their norm over channels plus 1e-10, and
  w_l the channel weights of head l:

    d(y, x) = sum_l mean_pixels sum_c w_lc (f_lc(y) - f_lc(x))^2.

  With a region, the sums over channels are resized bilinearly to the images' size
  (corners not aligned, as in the package's `spatial=True`), and the mean is over the
  region's pixels. Receptive fields are large, so pixels near the region count too.

  Args:
    name: "alex", "squeeze" or "vgg".
    trunk_weights: torchvision's weights of that network; see `weights.load`.
    head_weights: `lin0.model.1.weight` and so on, `[1, C, 1, 1]`, from the package's
      `weights/v0.1`.

  Returns:
    Function of predictions and targets, both `[B, H, W, 3]` in [0, 1], and optionally a
    region `[B, H, W, 1]`, 1 = counted, to `[B]` float32 of at least 0; 0 where the
    region is empty. It is a pytree whose leaves are the weights, see
    `feature_function`.

  Raises:
    ValueError: the network is unknown, or weights are missing or have a wrong shape.
      The function itself raises it for images of wrong shapes or too small.

  References:
    Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric, CVPR 2018, eq. 1.
  """
  if name not in TRUNKS:
    raise ValueError(f"name must be one of {', '.join(TRUNKS)}, not {name!r}.")
  trunk = TRUNKS[name]
  if "features.0.weight" not in trunk_weights:
    raise ValueError(
      "LPIPS was fitted to torchvision's weights: trunk_weights must have an array"
      " features.0.weight."
    )
  variables = network_variables(trunk.network, trunk_weights, trunk.taps)
  heads = _heads(trunk, head_weights)
  return jax.tree_util.Partial(functools.partial(_distance, trunk), variables, heads)


def _heads(trunk: _Trunk, weights: Weights) -> list[jax.Array]:
  heads = []
  for number, channels in enumerate(trunk.channels):
    name, shape = f"lin{number}.model.1.weight", (1, channels, 1, 1)
    if name not in weights:
      raise ValueError(f"LPIPS needs {name} {shape}, missing in head_weights.")
    if (found := jnp.shape(weights[name])) != shape:
      raise ValueError(f"{name} must be {shape} for this network, not {found}.")
    heads.append(jnp.asarray(weights[name], jnp.float32).reshape(channels))
  return heads


def _distance(trunk, variables, heads, predictions, targets, region=None):
  _check_shapes(predictions, targets, region)
  # Not one batch: if only one of the two needs a gradient, half of it is saved.
  ours, theirs = (
    trunk.network.apply(variables, _scale(images), trunk.taps)
    for images in (predictions, targets)
  )
  maps = [
    _layer_distance(ours[tap], theirs[tap], head)
    for tap, head in zip(trunk.taps, heads, strict=True)
  ]
  if region is None:
    return sum(jnp.mean(differences, axis=(1, 2)) for differences in maps)
  size = predictions.shape[:3]
  total = sum(pixels.resize(m, size, antialias=False) for m in maps)
  region = region[..., 0].astype(jnp.float32)
  count = jnp.sum(region, axis=(1, 2))
  return jnp.sum(region * total, axis=(1, 2)) / jnp.where(count > 0, count, 1)


def _layer_distance(ours, theirs, head):
  """Weighted squared differences of one layer, `[B, h, w]`."""
  square = jnp.square(_unit(ours) - _unit(theirs))
  return jnp.sum(square * head[None, None, None], axis=3)


def _check_shapes(predictions, targets, region):
  shape = predictions.shape
  if len(shape) != 4 or shape[3] != 3 or targets.shape != shape:
    raise ValueError(
      "predictions and targets must have one shape [B, H, W, 3], not"
      f" {shape} and {targets.shape}."
    )
  if region is not None:
    shapes.check_region(region, shape)


def _scale(images: jax.Array) -> jax.Array:
  shift, scale = (jnp.array(x)[None, None, None] for x in (_SHIFT, _SCALE))
  return (2 * images.astype(jnp.float32) - 1 - shift) / scale


def _unit(features: jax.Array) -> jax.Array:
  """Divides by the norm over channels; the gradient is finite where that is 0."""
  square = jnp.sum(jnp.square(features), axis=3, keepdims=True)
  norm = jnp.sqrt(jnp.where(square == 0, 1, square))
  return features / (norm + _EPSILON)
