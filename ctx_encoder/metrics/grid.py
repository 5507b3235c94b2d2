"""Grid artifacts that upsampling layers leave in a completed hole."""

import jax
import jax.numpy as jnp
from jax import lax

from ctx_encoder import morphology, shapes

# Sides, in periods, of the windows over which pixels of one phase are averaged.
_NARROW, _WIDE = 3, 7

_ROUNDING = 1 / (12 * 255**2)  # variance of the rounding to 8 bits


def grid_energy(images: jax.Array, mask: jax.Array, period: int) -> jax.Array:
  """Energy of a periodic grid in the hole, relative to the known region.

  A grid of period p repeats every p pixels along both axes: its spectrum lies at
  multiples of 1 / p cycles a pixel. Networks with upsampling layers of stride 2 produce
  grids of period 2, 4 and 8. The result is P(hole) / P(known) with

    P = mean(n7 c7^2) / mean(n3 (c3 - c7)^2 / (1 - n3 / n7)).

  c3 and c7 are means of high-passed pixels at offsets that are multiples of p on both
  axes, within windows of 3x3 and 7x7 periods; n3 and n7 are the numbers of such pixels.
  The numerator is the energy at the frequencies of the grid, the denominator that at
  neighbouring frequencies: P is about 1 for noise and textures, and less for strongly
  blurred regions. The high-pass filter subtracts the mean over one period, so it keeps
  the grid. Only pixels count for which all averaged pixels lie in the same region. The
  variance of rounding to 8 bits is added to both means: flat regions have P = 1.

  Args:
    images: `[B, H, W, C]` in [0, 1], completed images.
    mask: `[B, H, W, 1]` of any type, 1 = hole.
    period: in pixels, from 2 to half the image's side.

  Returns:
    `[B]` float32, above 0: about 1 without a grid, larger with one. Single photographs
    of 128x128 pixels with holes of a quarter of their area range from 0.4 to 4, so
    compare means of the logarithm over many images. A region that is too small to
    measure (empty, or smaller than about three periods) has P = 1, and the result is 1
    if that region is the hole.

  Raises:
    ValueError: shapes do not match, a known value of the mask is neither 0 nor 1, or
      the period is out of range.

  References:
    Odena et al., Deconvolution and Checkerboard Artifacts, Distill, 2016 (the
    artifact); P is a ratio of variances between and within groups, as in Fisher,
    Statistical Methods for Research Workers, 1925.
  """
  shapes.check_images(images, images)
  mask = shapes.checked_mask(mask, images.shape)
  if not 2 <= period <= min(images.shape[1:3]) // 2:
    raise ValueError(
      "period must be at least 2 and at most half the image's side, not"
      f" {period} for images of {images.shape}."
    )
  residual = _high_pass(images.astype(jnp.float32), period)
  in_hole, hole_is_measured = _peak(residual, mask, period)
  in_known, _ = _peak(residual, 1 - mask, period)
  return jnp.where(hole_is_measured, in_hole / in_known, 1)


def _peak(
  residual: jax.Array, region: jax.Array, period: int
) -> tuple[jax.Array, jax.Array]:
  """Returns P of `grid_energy` and whether the region is large enough, each `[B]`."""
  inside = 1 - morphology.dilate(1 - region, period // 2)
  counts, means = {}, {}
  for side in (_NARROW, _WIDE):
    counts[side] = jnp.maximum(_phase_sum(inside, period, side), 1)
    means[side] = _phase_sum(inside * residual, period, side) / counts[side]
  n3, n7, c3, c7 = counts[_NARROW], counts[_WIDE], means[_NARROW], means[_WIDE]
  axes, channels = (1, 2, 3), residual.shape[3]
  grid = jnp.sum(inside * n7 * jnp.square(c7), axes)
  near = jnp.sum(inside * n3 * jnp.square(c3 - c7), axes)
  pixels = channels * jnp.sum(inside, axes)
  freedom = channels * jnp.sum(inside * (1 - n3 / n7), axes)
  measured = freedom > 0
  grid, near = grid / jnp.maximum(pixels, 1), near / jnp.where(measured, freedom, 1)
  return jnp.where(measured, (grid + _ROUNDING) / (near + _ROUNDING), 1), measured


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
