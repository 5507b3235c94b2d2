"""Grid artifacts that upsampling layers leave in a completed hole."""

import jax
import jax.numpy as jnp

from ctx_encoder import shapes
from ctx_encoder.losses.grid import grid_energies


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
  in_hole, near_hole, pixels = grid_energies(images, mask, period)
  in_known, near_known, _ = grid_energies(images, 1 - mask, period)
  ratio = (in_hole / near_hole) / (in_known / near_known)
  return jnp.where(pixels > 0, ratio, 1)
