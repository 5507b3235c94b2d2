"""Rectangular holes."""

import jax
import jax.numpy as jnp

from ctx_encoder.masks import raster


def center(size: int, *, fraction: float = 0.5) -> jax.Array:
  """Returns a centred square hole, `[size, size, 1]` float32.

  Its side is `fraction * size` pixels, rounded: 1/4 of the area by default.
  """
  side = raster.pixels(fraction, size)
  start = (size - side) // 2
  y, x = raster.coordinates(size)
  inside = (y >= start) & (y < start + side) & (x >= start) & (x < start + side)
  return raster.as_mask(inside)


def random_block(
  key: jax.Array,
  size: int,
  *,
  count: int = 4,
  min_side: float = 0.15,
  max_side: float = 0.4,
  max_area: float = 0.25,
) -> jax.Array:
  """Returns the union of up to `count` rectangles, which may overlap.

  A rectangle that would enlarge the union beyond `max_area` is left out. The first one
  is always kept: a rectangle larger than `max_area` is made narrower.

  Args:
    key: PRNG key.
    size: side of the mask in pixels.
    count: number of rectangles drawn.
    min_side: shortest side of a rectangle, as a share of the mask's side.
    max_side: longest side of a rectangle, as a share of the mask's side.
    max_area: largest area of the union, as a share of the mask's area.

  Returns:
    `[size, size, 1]` float32, never empty.
  """
  budget = raster.budget(max_area, size)
  low, high = raster.pixels(min_side, size), raster.pixels(max_side, size)
  bits = jax.random.bits(key, (4, count))
  height = jnp.minimum(raster.integers(bits[0], low, high), budget)
  width = jnp.minimum(raster.integers(bits[1], low, high), budget // height)
  top = raster.integers(bits[2], 0, size - height)
  left = raster.integers(bits[3], 0, size - width)

  def rectangle(part):
    top, left, height, width = part
    y, x = raster.coordinates(size)
    return (y >= top) & (y < top + height) & (x >= left) & (x < left + width)

  parts = top, left, height, width
  return raster.as_mask(raster.union(rectangle, parts, size, budget))
