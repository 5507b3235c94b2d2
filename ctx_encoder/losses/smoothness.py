"""Losses on differences of neighbouring pixels: total variation, seam and edges."""

import jax
import jax.numpy as jnp

from ctx_encoder import morphology, shapes
from ctx_encoder.losses.reconstruction import absolute, divisor


def total_variation(
  images: jax.Array, mask: jax.Array, *, per: str = "hole"
) -> jax.Array:
  """Total variation over the hole dilated by one pixel.

  L = sum over neighbours i, j in R of |x_i - x_j| / (C * N), where R is the dilated
  hole, neighbours share a side, and N is as for `masked_l2`.

  Args:
    images: `[B, H, W, C]` float, any range; completed images.
    mask: `[B, H, W, 1]` of any type, 1 = hole.
    per: "hole" divides by the hole's size, "image" by the image's, "sum" by nothing.

  Returns:
    `[B]` float32; 0 where the hole is empty.

  Raises:
    ValueError: shapes do not match, a known value of the mask is neither 0 nor 1, or
      `per` is none of the three.

  References:
    Liu et al., Image Inpainting for Irregular Holes Using Partial Convolutions, ECCV
    2018, eq. 6.
  """
  shapes.check_images(images, images)
  mask = shapes.checked_mask(mask, images.shape)
  divide_by = divisor(mask, per, images.shape[3])
  region = morphology.dilate(mask, 1)
  total = sum(
    jnp.sum(first * second * absolute(step), axis=(1, 2, 3))
    for step, first, second in _steps(images.astype(jnp.float32), region)
  )
  return total / divide_by


def seam_loss(predictions: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
  """Mean absolute error of the differences across the hole's border.

  L = mean over neighbours i, j, one in the hole and one outside, and over channels, of
  |(predictions_i - predictions_j) - (targets_i - targets_j)|. It is also the metric
  `metrics.seam_error`.

  Args:
    predictions: `[B, H, W, C]` float, any range, the same as `targets`. For completed
      images L is the absolute error along the inside of the hole's border.
    targets: same shape.
    mask: `[B, H, W, 1]` of any type, 1 = hole.

  Returns:
    `[B]` float32; 0 where the hole has no border.

  Raises:
    ValueError: shapes do not match, or a known value of the mask is neither 0 nor 1.
  """
  error = shapes.error(predictions, targets)
  mask = shapes.checked_mask(mask, predictions.shape)
  total, count = jnp.zeros(len(error)), jnp.zeros(len(error))
  for step, first, second in _steps(error, mask):
    border = jnp.abs(first - second)
    total += jnp.sum(border * absolute(step), axis=(1, 2, 3))
    count += jnp.sum(border, axis=(1, 2, 3))
  return total / (jnp.where(count > 0, count, 1) * error.shape[3])


def edge_loss(
  predictions: jax.Array, targets: jax.Array, mask: jax.Array, *, per: str = "hole"
) -> jax.Array:
  """Mean absolute error of the Sobel derivatives over the hole.

  L = sum over the hole's pixels, channels and both axes of |S(predictions) -
  S(targets)| / (2 C N), S = Sobel filters divided by 8, which is the slope per pixel, N
  as for `masked_l2`. Borders are repeated.

  Args:
    predictions: `[B, H, W, C]` float, any range, the same as `targets`. Pixels next to
      the hole are read too.
    targets: same shape.
    mask: `[B, H, W, 1]` of any type, 1 = hole.
    per: "hole" divides by the hole's size, "image" by the image's, "sum" by nothing.

  Returns:
    `[B]` float32; 0 where the hole is empty.

  Raises:
    ValueError: as for `total_variation`.

  References:
    Sobel and Feldman, An Isotropic 3x3 Image Gradient Operator, 1968.
  """
  error = shapes.error(predictions, targets)
  mask = shapes.checked_mask(mask, predictions.shape)
  divide_by = divisor(mask, per, predictions.shape[3])
  pads = ((0, 0), (1, 1), (1, 1), (0, 0))
  error = jnp.pad(error, pads, mode="edge")
  down = error[:, 2:] - error[:, :-2]
  down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
  right = error[:, :, 2:] - error[:, :, :-2]
  right = right[:, :-2] + 2 * right[:, 1:-1] + right[:, 2:]
  slopes = (absolute(down) + absolute(right)) / 16
  return jnp.sum(mask * slopes, axis=(1, 2, 3)) / divide_by


def _steps(images: jax.Array, region: jax.Array):
  """Yields (difference of neighbours, region at one, region at the other) per axis."""
  down = jnp.s_[:, :-1], jnp.s_[:, 1:]
  right = jnp.s_[:, :, :-1], jnp.s_[:, :, 1:]
  for here, there in (down, right):
    yield images[there] - images[here], region[here], region[there]
