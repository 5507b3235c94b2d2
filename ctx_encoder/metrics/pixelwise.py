"""Errors of single pixels: L1, L2, PSNR, and the error across the hole's border."""

import jax
import jax.numpy as jnp

from ctx_encoder import shapes

PSNR_CAP = 100.0  # dB; the PSNR of exact completions and of empty regions


def l1(predictions: jax.Array, targets: jax.Array, region: jax.Array) -> jax.Array:
  """Mean absolute error over a region.

  Args:
    predictions: `[B, H, W, C]` in [0, 1].
    targets: same shape.
    region: `[B, H, W, 1]` of any type, 1 = counted.

  Returns:
    `[B]` float32 in [0, 1] (papers print per cent); 0 where the region is empty.

  Raises:
    ValueError: shapes do not match.
  """
  return _region_mean(jnp.abs(_error(predictions, targets)), region)


def l2(predictions: jax.Array, targets: jax.Array, region: jax.Array) -> jax.Array:
  """Mean squared error over a region; arguments and results as for `l1`."""
  return _region_mean(jnp.square(_error(predictions, targets)), region)


def psnr(predictions: jax.Array, targets: jax.Array, region: jax.Array) -> jax.Array:
  """Peak signal-to-noise ratio over a region: -10 log10(MSE), for a peak of 1.

  Args:
    predictions, targets, region: as for `l1`.

  Returns:
    `[B]` float32, dB, at most 100; 100 where the region is empty.

  Raises:
    ValueError: shapes do not match.
  """
  error = l2(predictions, targets, region)
  return -10 * jnp.log10(jnp.maximum(error, 10 ** (-PSNR_CAP / 10)))


def seam_error(
  predictions: jax.Array, targets: jax.Array, mask: jax.Array
) -> jax.Array:
  """Mean absolute error of the differences across the hole's border.

  The mean over neighbours i, j, one in the hole and one outside, and over channels, of
  |(predictions_i - predictions_j) - (targets_i - targets_j)|; `losses.seam_loss` is the
  same as a loss.

  Args:
    predictions: `[B, H, W, C]` in [0, 1], completed images.
    targets: same shape.
    mask: `[B, H, W, 1]` of any type, 1 = hole.

  Returns:
    `[B]` float32 in [0, 2]; 0 where the hole has no border.

  Raises:
    ValueError: shapes do not match, or a known value of the mask is neither 0 nor 1.
  """
  shapes.check_images(predictions, targets)
  hole = shapes.checked_mask(mask, predictions.shape)
  error = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
  total, count = jnp.zeros(len(error)), jnp.zeros(len(error))
  for axis in (1, 2):
    border = jnp.abs(jnp.diff(hole, axis=axis))
    total += jnp.sum(border * jnp.abs(jnp.diff(error, axis=axis)), axis=(1, 2, 3))
    count += jnp.sum(border, axis=(1, 2, 3))
  return total / (jnp.where(count > 0, count, 1) * error.shape[3])


def center_patch(mask: jax.Array) -> jax.Array:
  """Returns the region of Pathak et al.'s results: the central square of half the side.

  Half is rounded down, and an odd margin has its smaller part first, as in the square
  that generators of patches predict.
  """
  _, height, width, _ = mask.shape
  top, left = (height - height // 2) // 2, (width - width // 2) // 2
  patch = jnp.s_[:, top : top + height // 2, left : left + width // 2]
  return jnp.zeros(mask.shape).at[patch].set(1)


def by_region(
  completed: jax.Array, targets: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
  """L1, L2 and PSNR over the hole, the image and the centre patch.

  Args:
    completed: `[B, H, W, 3]` in [0, 1].
    targets: same shape.
    mask: `[B, H, W, 1]` of any type, 1 = hole.

  Returns:
    `{"l1_hole", "l2_hole", "psnr_hole", "l1_image", ..., "psnr_patch"}`, each `[B]`.
  """
  regions = {"hole": mask, "image": jnp.ones_like(mask), "patch": center_patch(mask)}
  metrics = {"l1": l1, "l2": l2, "psnr": psnr}
  return {
    f"{name}_{region_name}": metric(completed, targets, region)
    for region_name, region in regions.items()
    for name, metric in metrics.items()
  }


def check_region(region: jax.Array, shape: tuple[int, ...]) -> None:
  """Raises ValueError unless the region is `[B, H, W, 1]` for images of `shape`."""
  if region.shape != (*shape[:3], 1):
    raise ValueError(
      f"region must be [B, H, W, 1] for images [B, H, W, C], not {region.shape} for"
      f" {shape}."
    )


def _error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
  shapes.check_images(predictions, targets)
  return predictions.astype(jnp.float32) - targets.astype(jnp.float32)


def _region_mean(error: jax.Array, region: jax.Array) -> jax.Array:
  check_region(region, error.shape)
  region = region.astype(jnp.float32)  # bfloat16 counts only to 256
  count = jnp.sum(region, axis=(1, 2, 3)) * error.shape[3]
  return jnp.sum(region * error, axis=(1, 2, 3)) / jnp.where(count > 0, count, 1)
