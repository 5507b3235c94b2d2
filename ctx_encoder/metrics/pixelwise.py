"""Errors of single pixels: L1, L2 and PSNR."""

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
  return _region_mean(jnp.abs(shapes.error(predictions, targets)), region)


def l2(predictions: jax.Array, targets: jax.Array, region: jax.Array) -> jax.Array:
  """Mean squared error over a region; arguments and results as for `l1`."""
  return _region_mean(jnp.square(shapes.error(predictions, targets)), region)


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


def _region_mean(error: jax.Array, region: jax.Array) -> jax.Array:
  shapes.check_region(region, error.shape)
  region = region.astype(jnp.float32)  # bfloat16 counts only to 256
  count = jnp.sum(region, axis=(1, 2, 3)) * error.shape[3]
  return jnp.sum(region * error, axis=(1, 2, 3)) / jnp.where(count > 0, count, 1)
