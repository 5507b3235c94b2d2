"""Distances between features: what a picture shows, and in what manner.

Each takes features `{layer: [B, h, w, C]}`, or with `features=` the function that gives
them of images, so that any network serves: `models.feature_function`,
`models.multi_scale_features`, a discriminator's own.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from ctx_encoder.losses import _shapes
from ctx_encoder.losses.reconstruction import absolute

Features = Mapping[str, jax.Array]
FeatureFunction = Callable[[jax.Array], Features]


def gram_matrix(features: jax.Array) -> jax.Array:
  """Which channels are active together, wherever in the picture.

  G_ij = sum over positions k of A_ik A_jk, A being the features.

  Args:
    features: `[B, h, w, C]` float.

  Returns:
    `[B, C, C]` float32, symmetric, computed in float32.

  Raises:
    ValueError: the features have not four axes.

  References:
    Gatys et al., Image Style Transfer Using Convolutional Neural Networks, CVPR 2016,
    eq. 3.
  """
  if features.ndim != 4:
    raise ValueError(f"features must be [B, h, w, C], not {features.shape}.")
  batch, height, width, channels = features.shape
  flat = features.astype(jnp.float32).reshape(batch, height * width, channels)
  return jnp.einsum("bki,bkj->bij", flat, flat, precision="highest")


def style_loss(
  outputs: Features | jax.Array,
  targets: Features | jax.Array,
  *,
  features: FeatureFunction | None = None,
  weights: Mapping[str, float] | None = None,
) -> jax.Array:
  """Distance between the Gram matrices of two pictures' features.

  L = sum over layers l of w_l / M_l * sum_ij (G_ij(targets) - G_ij(outputs))^2, with
  M_l = (2 C h w)^2. Where the two are of different size, each Gram matrix is divided by
  its own h w instead.

  Args:
    outputs: `{layer: [B, h, w, C]}`, or images if `features` is given.
    targets: the same layers; h and w may differ.
    features: images to `{layer: [B, h, w, C]}`.
    weights: layer to w_l; a layer that is not listed does not count. 1 / layers each
      unless given.

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: layers, batch or channels differ, or a weight has no layer.

  References:
    Gatys et al., CVPR 2016, eq. 4 and 5.
  """
  outputs, targets = _both(outputs, targets, features)
  _shapes.check_features(outputs, targets, channels_only=True)

  def distance(name: str) -> jax.Array:
    one, other = outputs[name], targets[name]
    # Divided before they are squared, so that nothing overflows.
    difference = _mean_gram(one) - _mean_gram(other)
    return jnp.sum(jnp.square(difference / (2 * one.shape[3])), axis=(1, 2))

  return _weighted(distance, outputs, weights)


def content_loss(
  outputs: Features | jax.Array,
  targets: Features | jax.Array,
  *,
  features: FeatureFunction | None = None,
  weights: Mapping[str, float] | None = None,
) -> jax.Array:
  """Mean squared distance between two pictures' features.

  L = sum over layers l of w_l * mean over positions and channels of (A - B)^2.

  Args:
    outputs: `{layer: [B, h, w, C]}`, or images if `features` is given.
    targets: the same layers and shapes.
    features, weights: as for `style_loss`.

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: layers or shapes differ, or a weight has no layer.

  References:
    Gatys et al., CVPR 2016, eq. 1; Johnson et al., Perceptual Losses for Real-Time
    Style Transfer and Super-Resolution, ECCV 2016, eq. 2, which has the mean.
  """
  outputs, targets = _both(outputs, targets, features)
  _shapes.check_features(outputs, targets)
  return _weighted(
    lambda name: _mean(jnp.square(_difference(outputs[name], targets[name]))),
    outputs,
    weights,
  )


def feature_matching(
  outputs: Features, targets: Features, *, weights: Mapping[str, float] | None = None
) -> jax.Array:
  """Mean absolute distance between a discriminator's features of two pictures.

  L = sum over layers l of w_l * mean over positions and channels of |A - B|.

  Args:
    outputs: `{layer: [B, h, w, C]}`, of completed images.
    targets: the same layers and shapes, of real ones.
    weights: as for `style_loss`.

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: layers or shapes differ, or a weight has no layer.

  References:
    Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with
    Conditional GANs, CVPR 2018, eq. 4.
  """
  _shapes.check_features(outputs, targets)
  return _weighted(
    lambda name: _mean(absolute(_difference(outputs[name], targets[name]))),
    outputs,
    weights,
  )


def _both(outputs, targets, features) -> tuple[Features, Features]:
  if features is not None:
    _shapes.check_images(outputs, targets)
    outputs, targets = features(outputs), features(targets)
  if not isinstance(outputs, Mapping) or not isinstance(targets, Mapping):
    raise ValueError(
      "outputs and targets must be {layer: features}; of images, give `features=`, the"
      " function that maps them to that."
    )
  return outputs, targets


def _mean_gram(features: jax.Array) -> jax.Array:
  return gram_matrix(features) / (features.shape[1] * features.shape[2])


def _difference(one: jax.Array, other: jax.Array) -> jax.Array:
  return one.astype(jnp.float32) - other.astype(jnp.float32)


def _mean(values: jax.Array) -> jax.Array:
  return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _weighted(distance, layers, weights) -> jax.Array:
  if weights is None:
    weights = dict.fromkeys(layers, 1 / len(layers))
  unknown = sorted(set(weights) - set(layers))
  if unknown or not any(weights.values()):
    raise ValueError(
      f"weights must name layers among {sorted(layers)}, one at least above 0; not"
      f" {dict(weights)}."
    )
  return sum(
    (weight * distance(name) for name, weight in weights.items() if weight),
    start=jnp.zeros(()),
  )
