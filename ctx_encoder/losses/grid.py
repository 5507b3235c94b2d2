"""A loss on the grid that upsampling layers leave in a hole."""

import jax
import jax.numpy as jnp
from jax import lax

from ctx_encoder import morphology, shapes

# Sides, in periods, of the windows over which pixels of one phase are averaged.
_NARROW, _WIDE = 3, 7

_ROUNDING = 1 / (12 * 255**2)  # variance of the rounding to 8 bits
_FEW = 100  # pixels; the energies of fewer vary too much to be a loss


def grid_loss(images: jax.Array, mask: jax.Array, *, period: int = 2) -> jax.Array:
  """Energy of a periodic grid in the hole above that of neighbouring frequencies.

  L = max(0, log P), P = the ratio that `metrics.grid_energy` defines for one region,
  here for the hole. It is about 1 for photographs and noise. No gradient flows through
  its denominator: the loss removes the grid and adds no texture.

  Args:
    images: `[B, H, W, C]` in [0, 1], completed images.
    mask: `[B, H, W, 1]` of any type, 1 = hole.
    period: in pixels, from 2 to half the image's side.

  Returns:
    `[B]` float32, at least 0; 0 for holes of fewer than some 100 pixels.

  Raises:
    ValueError: shapes do not match, a known value of the mask is neither 0 nor 1, or
      the period is out of range.
  """
  shapes.check_images(images, images)
  mask = shapes.checked_mask(mask, images.shape)
  grid, near, pixels = grid_energies(images, mask, period)
  # The logarithm is of 1 where it does not count, so that its gradient is finite.
  ratio = jnp.where(pixels < _FEW, 1, grid / lax.stop_gradient(near))
  return jnp.maximum(jnp.log(ratio), 0)


def grid_energies(
  images: jax.Array, region: jax.Array, period: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Energies of a region at the frequencies of a grid, and at neighbouring ones.

  They are numerator and denominator of P in `metrics.grid_energy`, each with the
  variance of rounding to 8 bits.

  Args:
    images: `[B, H, W, C]` in [0, 1].
    region: `[B, H, W, 1]` float, 1 = counts.
    period: of the grid, in pixels.

  Returns:
    The energies, and the number of independent pixels from which they are estimated;
    `[B]` float32 each. The energies are equal where that number is 0.

  Raises:
    ValueError: the period is less than 2 or more than half the image's side.
  """
  if not 2 <= period <= min(images.shape[1:3]) // 2:
    raise ValueError(
      "period must be at least 2 and at most half the image's side, not"
      f" {period} for images of {images.shape}."
    )
  residual = _high_pass(images.astype(jnp.float32), period)
  inside = 1 - morphology.dilate(1 - region, period // 2)
  counts, means = {}, {}
  for side in (_NARROW, _WIDE):
    counts[side] = jnp.maximum(_phase_sum(inside, period, side), 1)
    means[side] = _phase_sum(inside * residual, period, side) / counts[side]
  n3, n7, c3, c7 = counts[_NARROW], counts[_WIDE], means[_NARROW], means[_WIDE]
  axes, channels = (1, 2, 3), residual.shape[3]
  grid = jnp.sum(inside * n7 * jnp.square(c7), axes)
  near = jnp.sum(inside * n3 * jnp.square(c3 - c7), axes)
  pixels = jnp.sum(inside, axes)
  free = jnp.sum(inside * (1 - n3 / n7), axes)
  measured = free > 0
  grid = grid / (channels * jnp.maximum(pixels, 1))
  near = near / (channels * jnp.where(measured, free, 1))
  grid, near = (jnp.where(measured, energy, 0) + _ROUNDING for energy in (grid, near))
  return grid, near, free


def _high_pass(images: jax.Array, period: int) -> jax.Array:
  """Subtracts the mean over one period along both axes, reflecting at the border."""
  half = period // 2
  taps = [1 / period] * (2 * half + 1)
  if period % 2 == 0:  # centred: the outermost pixels have half the weight
    taps[0] = taps[-1] = 0.5 / period
  low = images
  for axis in (1, 2):
    pads = [(half, half) if i == axis else (0, 0) for i in range(4)]
    padded = jnp.pad(low, pads, mode="reflect")
    low = sum(
      tap * lax.slice_in_dim(padded, i, i + images.shape[axis], axis=axis)
      for i, tap in enumerate(taps)
    )
  return images - low


def _phase_sum(values: jax.Array, period: int, side: int) -> jax.Array:
  """Sums the pixels of one phase in windows of `side` x `side` periods."""
  for axis in (1, 2):
    window, dilation = [1] * 4, [1] * 4
    window[axis], dilation[axis] = side, period
    values = lax.reduce_window(
      values, 0.0, lax.add, window, [1] * 4, "SAME", window_dilation=dilation
    )
  return values
