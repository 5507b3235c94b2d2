"""How far the completed hole is from the truth."""

import jax
import jax.numpy as jnp

from ctx_encoder.losses import _shapes


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
  of hole pixels, or H * W with `per="image"`.

  Args:
    predictions: `[B, H, W, C]` float, any range, the same as `targets`.
    targets: same shape.
    mask: `[B, H, W, 1]`, 1 = hole.
    per: "hole" divides by the hole's size, "image" by the image's.
    weights: `[B, H, W, 1]`, non-negative factors of the error; 1 unless given.

  Returns:
    `[B]` float32; 0 where the hole is empty.

  Raises:
    ValueError: shapes do not match, or `per` is neither of the two.

  References:
    Pathak et al., Context Encoders, CVPR 2016, eq. 1.
  """
  _shapes.check_images(predictions, targets, mask)
  error = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
  return _masked_mean(jnp.square(error), mask, per, weights)


def masked_l1(
  predictions: jax.Array,
  targets: jax.Array,
  mask: jax.Array,
  *,
  per: str = "hole",
  weights: jax.Array | None = None,
) -> jax.Array:
  """Mean absolute error over the hole.

  L = sum(weights * mask * |predictions - targets|) / (C * N), where N is the number of
  hole pixels, or H * W with `per="image"`.

  Args:
    predictions: `[B, H, W, C]` float, any range, the same as `targets`.
    targets: same shape.
    mask: `[B, H, W, 1]`, 1 = hole.
    per: "hole" divides by the hole's size, "image" by the image's.
    weights: `[B, H, W, 1]`, non-negative factors of the error; 1 unless given.

  Returns:
    `[B]` float32; 0 where the hole is empty.

  Raises:
    ValueError: shapes do not match, or `per` is neither of the two.
  """
  _shapes.check_images(predictions, targets, mask)
  error = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
  return _masked_mean(jnp.abs(error), mask, per, weights)


def _masked_mean(error, mask, per, weights):
  if per not in ("hole", "image"):
    raise ValueError(f"per must be 'hole' or 'image', not {per!r}.")
  mask = mask.astype(jnp.float32)
  if weights is None:
    weighted = mask
  elif weights.shape != mask.shape:
    raise ValueError(f"weights must be {mask.shape} as the mask, not {weights.shape}.")
  else:
    weighted = mask * weights.astype(jnp.float32)
  total = jnp.sum(weighted * error, axis=(1, 2, 3))
  _, height, width, channels = error.shape
  if per == "image":
    return total / (height * width * channels)
  holes = jnp.sum(mask, axis=(1, 2, 3))
  return total / (jnp.where(holes > 0, holes, 1) * channels)
