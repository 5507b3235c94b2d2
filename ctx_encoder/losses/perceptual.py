"""Perceptual losses: distances between the features of two images.

Features may be those of VGG or random filters (`models.feature_nets`), or of the
discriminator. They are `{layer: [B, h, w, C]}`, or a sequence of `[B, h, w, C]` whose
layers are named 0, 1, ...; with `features=` the arguments are images instead.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ctx_encoder import pixels, shapes
from ctx_encoder.losses.reconstruction import absolute

Features = Mapping[str, jax.Array] | Sequence[jax.Array]
FeatureFunction = Callable[[jax.Array], Features]


def gram_matrix(features: jax.Array) -> jax.Array:
  """Gram matrix of the channels.

  G_ij = sum over positions k of A_ik A_jk, A = features.

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
  flat = _positions(features)
  return jnp.einsum("bki,bkj->bij", flat, flat, precision="highest")


def style_loss(
  outputs: Features | jax.Array,
  targets: Features | jax.Array,
  *,
  features: FeatureFunction | None = None,
  weights: Mapping[str, float] | None = None,
) -> jax.Array:
  """Squared distance between the Gram matrices of two images' features.

  L = sum over layers l of w_l / M_l * sum_ij (G_ij(targets) - G_ij(outputs))^2, with
  M_l = (2 C h w)^2. If the sizes differ, each Gram matrix is divided by its own h w.

  Args:
    outputs: features, or images if `features` is given.
    targets: the same layers; h and w may differ.
    features: function from images `[B, H, W, C]` to features.
    weights: {layer: w_l}, 0 for layers left out; None = 1 / (number of layers) each.

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: layers, batch or channels differ, or a weight has no layer.

  References:
    Gatys et al., CVPR 2016, eq. 4 and 5.
  """
  outputs, targets = _both(outputs, targets, features)
  shapes.check_features(outputs, targets, channels_only=True)

  def distance(name: str) -> jax.Array:
    one, other = outputs[name], targets[name]
    # Divided before squaring, against overflow.
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
  """Mean squared distance between two images' features (perceptual loss).

  L = sum over layers l of w_l * mean over positions and channels of (A - B)^2.

  Args:
    outputs: features, or images if `features` is given.
    targets: the same layers and shapes.
    features, weights: as for `style_loss`.

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: layers or shapes differ, or a weight has no layer.

  References:
    Gatys et al., CVPR 2016, eq. 1; Johnson et al., Perceptual Losses for Real-Time
    Style Transfer and Super-Resolution, ECCV 2016, eq. 2 (with the mean).
  """
  outputs, targets = _both(outputs, targets, features)
  shapes.check_features(outputs, targets)
  return _weighted(
    lambda name: _mean(jnp.square(_difference(outputs[name], targets[name]))),
    outputs,
    weights,
  )


def contextual_loss(
  outputs: Features | jax.Array,
  targets: Features | jax.Array,
  *,
  features: FeatureFunction | None = None,
  weights: Mapping[str, float] | None = None,
  bandwidth: float = 0.5,
) -> jax.Array:
  """Distance between two sets of features, whatever their positions.

  L = sum over layers l of -w_l log(mean_j max_i CX_ij), CX_ij = e_ij / sum_k e_ik,
  e_ij = exp((1 - d_ij / (min_k d_ik + 1e-5)) / h), d_ij the cosine distance of output
  i and target j, both minus the targets' mean. It needs memory for (h w)^2 distances
  per layer and image: resize or sample large features first.

  Args:
    outputs, targets, features, weights: as for `style_loss`.
    bandwidth: h, above 0; smaller values give more weight to the nearest target.

  Returns:
    `[B]` float32, at least 0; about 0 where each target has a near output of its own.

  Raises:
    ValueError: as for `style_loss`, or the bandwidth is not above 0.

  References:
    Mechrez et al., The Contextual Loss for Image Transformation with Non-Aligned Data,
    ECCV 2018, eq. 2 to 5.
  """
  if not bandwidth > 0:
    raise ValueError(f"bandwidth must be above 0, not {bandwidth}.")
  outputs, targets = _both(outputs, targets, features)
  shapes.check_features(outputs, targets, channels_only=True)

  def distance(name: str) -> jax.Array:
    ours, theirs = (_positions(x[name]) for x in (outputs, targets))
    mean = jnp.mean(theirs, axis=1, keepdims=True)
    cosine = jnp.einsum(
      "bic,bjc->bij", _unit(ours - mean), _unit(theirs - mean), precision="highest"
    )
    apart = jnp.maximum(1 - cosine, 0)
    nearest = jnp.min(apart, axis=2, keepdims=True)
    similarity = jax.nn.softmax(-apart / (nearest + 1e-5) / bandwidth, axis=2)
    return -jnp.log(jnp.mean(jnp.max(similarity, axis=1), axis=1))

  return _weighted(distance, outputs, weights)


def feature_matching(
  outputs: Features,
  targets: Features,
  *,
  mask: jax.Array | None = None,
  weights: Mapping[str, float] | None = None,
  squared: bool = False,
) -> jax.Array:
  """Mean distance between the discriminator's features of two images.

  L = sum over layers l of w_l * mean over positions and channels of |A - B|, or of
  (A - B)^2 with `squared`. With a mask each is multiplied by 1 - m_l, m_l = the mask
  resized to layer l bilinearly without antialiasing: only known positions contribute.
  LaMa's code uses squares, without a mask by default.

  Args:
    outputs: features of completed images.
    targets: the same layers and shapes, of real images.
    mask: `[B, H, W, 1]` of any type, 1 = hole; None = all positions contribute.
    weights: as for `style_loss`.
    squared: whether the error is squared; the absolute one is that of Wang et al.

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: layers or shapes differ, a weight has no layer, or the mask's shape or
      values are wrong.

  References:
    Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with
    Conditional GANs, CVPR 2018, eq. 4; Suvorov et al., Resolution-robust Large Mask
    Inpainting with Fourier Convolutions, WACV 2022.
  """
  outputs, targets = _layers(outputs), _layers(targets)
  shapes.check_features(outputs, targets)
  if mask is not None:
    batch = next(iter(outputs.values())).shape[:1]
    mask = shapes.checked_mask(mask, (*batch, *mask.shape[1:3], 1))

  def distance(name: str) -> jax.Array:
    error = (jnp.square if squared else absolute)(
      _difference(outputs[name], targets[name])
    )
    if mask is not None:
      shape = (*error.shape[:3], 1)
      error *= 1 - pixels.resize(mask, shape, antialias=False)
    return _mean(error)

  return _weighted(distance, outputs, weights)


def _layers(features: Features) -> Mapping[Any, jax.Array]:
  """Returns features as a mapping; layers of a sequence are named by position."""
  if isinstance(features, Mapping):
    return features
  if isinstance(features, Sequence):
    return dict(enumerate(features))
  raise ValueError(
    "outputs and targets must be {layer: features} or a sequence of features; for"
    " images pass `features=`, a function from images to features."
  )


def _both(outputs, targets, features):
  if features is not None:
    shapes.check_images(outputs, targets)
    outputs, targets = features(outputs), features(targets)
  return _layers(outputs), _layers(targets)


def _mean_gram(features: jax.Array) -> jax.Array:
  return gram_matrix(features) / (features.shape[1] * features.shape[2])


def _difference(one: jax.Array, other: jax.Array) -> jax.Array:
  return one.astype(jnp.float32) - other.astype(jnp.float32)


def _positions(features: jax.Array) -> jax.Array:
  """Returns features `[B, h, w, C]` as `[B, h * w, C]`, float32."""
  batch, height, width, channels = features.shape
  return features.astype(jnp.float32).reshape(batch, height * width, channels)


def _unit(vectors: jax.Array) -> jax.Array:
  """Scales to length 1; vectors of length 0 stay, with a gradient of 0."""
  square = jnp.sum(jnp.square(vectors), axis=2, keepdims=True)
  return vectors * jax.lax.rsqrt(jnp.where(square == 0, 1, square))


def _mean(values: jax.Array) -> jax.Array:
  return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def _weighted(distance, layers, weights) -> jax.Array:
  if weights is None:
    weights = dict.fromkeys(layers, 1 / len(layers))
  unknown = sorted(set(weights) - set(layers))
  if unknown or not any(weights.values()):
    raise ValueError(
      f"weights must name layers among {sorted(layers)}, at least one of them above 0;"
      f" not {dict(weights)}."
    )
  return sum(
    (weight * distance(name) for name, weight in weights.items() if weight),
    start=jnp.zeros(()),
  )
