"""Holes of arbitrary shape: thresholded noise, and silhouettes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder.masks import raster


def region_noise(key: jax.Array, size: int, *, area: float = 0.25) -> jax.Array:
  """Returns blobs: the pixels of band-limited noise below its `area` quantile.

  Uniform noise is upsampled bicubically by 16 (by less for sides under 64, to keep at
  least 4 cells a side) from a random offset, and thresholded. Pathak's code thresholds
  at 0.25 and repeats until the hole covers 20 to 30 per cent; the quantile needs one
  draw.

  Args:
    key: PRNG key.
    size: side of the mask in pixels.
    area: area of the hole, as a share of the mask's area.

  Returns:
    `[size, size, 1]` float32; the hole's area is at most `area`, and less by the number
    of tied values, a few pixels.
  """
  cell = max(1, min(16, size // 4))
  weights = _bicubic_weights(size, cell)
  cells = weights.shape[1]
  bits = jax.random.bits(key, (cells * cells + 2,))
  noise = raster.integers(bits[2:], 0, 255).astype(jnp.float32).reshape(cells, cells)
  offset = raster.integers(bits[:2], 0, cell - 1)
  rows, columns = (
    jax.lax.dynamic_slice_in_dim(weights, offset[axis], size) for axis in (0, 1)
  )
  # Noise below 2^8, weights in units of 1/128: all sums are integers below 2^23, exact
  # in float32 in any order of summation.
  matmul = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
  upsampled = matmul(matmul(rows, noise), columns.T).astype(jnp.int32)
  return raster.as_mask(upsampled < _threshold(upsampled, raster.budget(area, size)))


def region_shapes(
  key: jax.Array, size: int, shapes: jax.Array, *, max_area: float = 0.25
) -> jax.Array:
  """Returns one of `shapes` at a random position, scale, rotation and flip.

  The silhouette is scaled to an area from `max_area` / 2 to `max_area`. Its pixel
  nearest to its centre of mass is placed on a pixel drawn from the central three
  quarters of both axes; parts outside the mask are cut off. Where rounding made the
  area larger than `max_area`, rows at the bottom are removed.

  Args:
    key: PRNG key.
    size: side of the mask in pixels.
    shapes: `[N, s, s, 1]`, above 0 = hole, none empty; s at most 1024.
    max_area: largest area of the hole, as a share of the mask's area; at least one
      row, 1 / size.

  Returns:
    `[size, size, 1]` float32, never empty.
  """
  budget = raster.budget(max(max_area, 1 / size), size)
  bits = jax.random.bits(key, (6,))
  chosen = raster.integers(bits[0], 0, shapes.shape[0] - 1)
  shape = jnp.asarray(shapes)[chosen, :, :, 0] > 0
  side = shape.shape[0]
  shape_y, shape_x = raster.coordinates(side)
  pixels = jnp.maximum(1, jnp.sum(shape))
  mean_y = jnp.sum(jnp.where(shape, shape_y, 0)) // pixels
  mean_x = jnp.sum(jnp.where(shape, shape_x, 0)) // pixels
  distance = (shape_y - mean_y) ** 2 + (shape_x - mean_x) ** 2
  anchor = jnp.argmin(jnp.where(shape, distance, 2 * side**2))

  # The map from mask pixels to silhouette pixels, integers in units of 1/1024.
  area = raster.integers(bits[1], (budget + 1) // 2, budget)
  step = jnp.ceil(256 * jnp.sqrt(pixels / area)).astype(jnp.int32)
  turn = raster.integers(bits[2], 0, raster.TURN - 1)
  cos = (step * jnp.asarray(raster.COS)[turn] + 128) // 256
  sin = (step * jnp.asarray(raster.SIN)[turn] + 128) // 256
  flip = 1 - 2 * raster.integers(bits[3], 0, 1)
  place = raster.integers(bits[4:], size // 8, size - 1 - size // 8)
  y, x = raster.coordinates(size)
  y, x = y - place[0], (x - place[1]) * flip
  source_y = anchor // side + (cos * y + sin * x + raster.ONE // 2) // raster.ONE
  source_x = anchor % side + (cos * x - sin * y + raster.ONE // 2) // raster.ONE
  inside = (source_y >= 0) & (source_y < side) & (source_x >= 0) & (source_x < side)
  hole = inside & shape[source_y.clip(0, side - 1), source_x.clip(0, side - 1)]
  area_above = jnp.cumsum(jnp.sum(hole, axis=1, keepdims=True), axis=0)
  return raster.as_mask(hole & (area_above <= budget))


def _threshold(values: jax.Array, rank: int) -> jax.Array:
  """Returns the largest t such that at most `rank` of the int `values` are below t.

  Bisection takes a third of the time of a sort on CPUs.
  """

  def halve(_, bounds):
    low, high = bounds
    middle = (low + high + 1) // 2
    fits = jnp.sum(values < middle) <= rank
    return jnp.where(fits, middle, low), jnp.where(fits, high, middle - 1)

  bounds = jnp.min(values), jnp.max(values)
  return jax.lax.fori_loop(0, 24, halve, bounds)[0]


@functools.cache
def _bicubic_weights(size: int, cell: int) -> np.ndarray:
  """Returns `[size + cell - 1, cells]` weights, integers in units of 1/128.

  They are those of bicubic resizing: Keys's kernel with a = -1/2.
  """
  positions = (np.arange(size + cell - 1) + 0.5) / cell + 1.5
  cells = math.ceil((size + cell) / cell) + 4
  distance = np.abs(positions[:, None] - 0.5 - np.arange(cells)[None])
  near = 1.5 * distance**3 - 2.5 * distance**2 + 1
  far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
  weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
  return np.rint(128 * weights).astype(np.float32)
