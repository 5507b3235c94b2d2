"""Reconstruction losses over the hole."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ctx_encoder import shapes

PER = ("hole", "image", "sum")


def masked_l2(
  predictions: jax.Array,
  targets: jax.Array,
  mask: jax.Array,
  *,
  per: str = "hole",
  weights: jax.Array | None = None,
) -> jax.Array:
  """Mean squared error over the hole.

  L = sum(weights * mask * (predictions - targets)^2) / (C * N), where N is the number
  of hole pixels, or H * W with `per="image"`; not divided with `per="sum"`. With
  `per="none"` the error of each pixel, weights * mask * (predictions - targets)^2.

  Args:
    predictions: `[B, H, W, C]` float, any range, the same as `targets`.
    targets: same shape.
    mask: `[B, H, W, 1]` of any type, 1 = hole.
    per: "hole" divides by the hole's size, "image" by the image's, "sum" by nothing;
      "none" does not sum.
    weights: `[B, H, W, 1]`, factors of the error, at least 0; None = 1.

  Returns:
    `[B]` float32; 0 where the hole is empty. `[B, H, W, C]` with `per="none"`.

  Raises:
    ValueError: shapes do not match, a known value of the mask is neither 0 nor 1, or
      `per` is none of the four.

  References:
    Pathak et al., Context Encoders, CVPR 2016, eq. 1.
  """
  return _masked(jnp.square, predictions, targets, mask, per, weights)


def masked_l1(
  predictions: jax.Array,
  targets: jax.Array,
  mask: jax.Array,
  *,
  per: str = "hole",
  weights: jax.Array | None = None,
) -> jax.Array:
  """Mean absolute error over the hole.

  L = sum(weights * mask * |predictions - targets|) / (C * N), N as for `masked_l2`.

  Args:
    predictions, targets, mask, per, weights: as for `masked_l2`.

  Returns:
    `[B]` float32; 0 where the hole is empty.

  Raises:
    ValueError: as for `masked_l2`.
  """
  return _masked(absolute, predictions, targets, mask, per, weights)


def masked_huber(
  predictions: jax.Array,
  targets: jax.Array,
  mask: jax.Array,
  *,
  delta: float = 1.0,
  per: str = "hole",
  weights: jax.Array | None = None,
) -> jax.Array:
  """Huber loss over the hole: quadratic for small errors, linear for large ones.

  L = sum(weights * mask * h(predictions - targets)) / (C * N), N as for `masked_l2`,
  h(e) = e^2 / 2 where |e| <= delta, else delta * (|e| - delta / 2).

  Args:
    predictions, targets, mask, per, weights: as for `masked_l2`.
    delta: above 0, in the unit of the images.

  Returns:
    `[B]` float32; 0 where the hole is empty.

  Raises:
    ValueError: as for `masked_l2`, or `delta` is not above 0.

  References:
    Huber, Robust Estimation of a Location Parameter, 1964.
  """
  if not delta > 0:
    raise ValueError(f"delta must be above 0, not {delta}.")

  def huber(error):
    small = jnp.clip(jnp.abs(error), 0, delta)
    return small * (jnp.abs(error) - small / 2)

  return _masked(huber, predictions, targets, mask, per, weights)


def masked_charbonnier(
  predictions: jax.Array,
  targets: jax.Array,
  mask: jax.Array,
  *,
  epsilon: float = 1e-3,
  per: str = "hole",
  weights: jax.Array | None = None,
) -> jax.Array:
  """Charbonnier loss over the hole: the absolute error, smoothed at 0.

  L = sum(weights * mask * sqrt((predictions - targets)^2 + epsilon^2)) / (C * N), N as
  for `masked_l2`.

  Args:
    predictions, targets, mask, per, weights: as for `masked_l2`.
    epsilon: above 0, in the unit of the images; the loss of an exact prediction.

  Returns:
    `[B]` float32; 0 where the hole is empty.

  Raises:
    ValueError: as for `masked_l2`, or `epsilon` is not above 0.

  References:
    Charbonnier et al., Two deterministic half-quadratic regularization algorithms for
    computed imaging, ICIP 1994;
    Lai et al., Deep Laplacian Pyramid Networks, CVPR 2017, eq. 2.
  """
  if not epsilon > 0:
    raise ValueError(f"epsilon must be above 0, not {epsilon}.")

  def charbonnier(error):
    return jnp.sqrt(jnp.square(error) + epsilon**2)

  return _masked(charbonnier, predictions, targets, mask, per, weights)


def split(
  loss: Callable[..., jax.Array],
  predictions: jax.Array,
  targets: jax.Array,
  mask: jax.Array,
  **options,
) -> dict[str, jax.Array]:
  """A reconstruction loss over the hole and over the known pixels, as two terms.

  {"hole": loss(predictions, targets, mask), "valid": loss(predictions, targets,
  1 - mask)}, to be weighted by `combine`. Liu et al. use L1 per image with the weights
  6 and 1.

  Args:
    loss: one of the masked losses of this module.
    predictions, targets, mask: as for `masked_l2`; predictions before compositing.
    options: keyword arguments of the loss.

  Returns:
    `{"hole": [B], "valid": [B]}` float32.

  Raises:
    ValueError: as for `masked_l2`.

  References:
    Liu et al., Image Inpainting for Irregular Holes Using Partial Convolutions, ECCV
    2018, section 3.3.
  """
  shapes.check_images(predictions, targets)
  mask = shapes.checked_mask(mask, predictions.shape)
  return {
    "hole": loss(predictions, targets, mask, **options),
    "valid": loss(predictions, targets, 1 - mask, **options),
  }


def _masked(penalty, predictions, targets, mask, per, weights) -> jax.Array:
  error = shapes.error(predictions, targets)
  factors = mask = shapes.checked_mask(mask, predictions.shape)
  if weights is not None:
    if weights.shape != mask.shape:
      raise ValueError(
        f"weights must have the mask's shape {mask.shape}, not {weights.shape}."
      )
    factors = mask * weights.astype(jnp.float32)
  if per == "none":
    return factors * penalty(error)
  divide_by = divisor(mask, per, predictions.shape[3])
  return jnp.sum(factors * penalty(error), axis=(1, 2, 3)) / divide_by


def absolute(values: jax.Array) -> jax.Array:
  """Returns |values|, whose gradient at 0 is 0 (that of `jnp.abs` is 1)."""
  return values * jnp.sign(values)


def divisor(mask: jax.Array, per: str, channels: int) -> jax.Array:
  """Returns the divisor of a sum over the hole, `[B]` float32, above 0."""
  if per not in PER:
    raise ValueError(f"per must be one of {', '.join(PER)}, not {per!r}.")
  batch, height, width, _ = mask.shape
  if per == "sum":
    return jnp.ones((batch,))
  if per == "image":
    return jnp.full((batch,), float(height * width * channels))
  holes = jnp.sum(mask, axis=(1, 2, 3))
  return jnp.where(holes > 0, holes, 1) * channels
