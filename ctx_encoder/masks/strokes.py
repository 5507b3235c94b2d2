"""Free-form holes: strokes of a round brush."""

import functools
import math

import jax
import jax.numpy as jnp

from ctx_encoder.masks import raster


def brush(
  key: jax.Array,
  size: int,
  *,
  strokes: int = 4,
  width: float = 0.1,
  max_area: float = 0.25,
) -> jax.Array:
  """Returns free-form strokes: random walks of straight pieces with a round brush.

  A stroke has 6 pieces. Each turns by up to 60 degrees and is reflected at the border.
  A piece that would enlarge the union beyond `max_area` is left out; the first piece is
  always kept.

  Args:
    key: PRNG key.
    size: side of the mask in pixels.
    strokes: number of strokes drawn.
    width: largest width of a stroke, as a share of the mask's side; the smallest is
      half of it.
    max_area: largest area of the union, as a share of the mask's area.

  Returns:
    `[size, size, 1]` float32, never empty.
  """
  pieces = 6
  budget = raster.budget(max_area, size)
  # A piece covers at most (thickness + 1) * (length + thickness + 1) pixels.
  widest = max(1, min(raster.pixels(width, size), math.isqrt(budget) - 1))
  bits = jax.random.bits(key, (4 + 2 * pieces, strokes))
  thickness = raster.integers(bits[0], (widest + 1) // 2, widest)
  direction = raster.integers(bits[1], 0, raster.TURN - 1)
  position = raster.integers(bits[2:4], 0, size - 1)
  turns, lengths = bits[4 : 4 + pieces], bits[4 + pieces :]
  turns = raster.integers(turns, -(raster.TURN // 6), raster.TURN // 6)
  longest = max(1, size // 4)
  lengths = raster.integers(lengths, longest // 4, longest)
  fits = jnp.maximum(0, budget // (thickness + 1) - (thickness + 1))
  lengths = jnp.minimum(lengths, fits[None])

  def walk(state, piece):
    position, direction = state
    turn, length = piece
    direction = direction + turn
    ahead = position + _displacement(direction, length)
    beyond = (ahead < 0) | (ahead >= size)
    direction = jnp.where(beyond[0], -direction, direction)
    direction = jnp.where(beyond[1], raster.TURN // 2 - direction, direction)
    end = (position + _displacement(direction, length)).clip(0, size - 1)
    return (end, direction), (*position, direction % raster.TURN, length, thickness)

  _, parts = jax.lax.scan(walk, (position, direction), (turns, lengths))
  # From [pieces, strokes] to a list of pieces, stroke by stroke.
  parts = jax.tree.map(lambda part: part.T.ravel(), parts)
  capsule = functools.partial(_capsule, size=size)
  return raster.as_mask(raster.union(capsule, parts, size, budget))


def _capsule(part, size: int) -> jax.Array:
  """Returns the pixels of one piece with round ends, `[size, size]` bool."""
  start_y, start_x, direction, length, thickness = part
  end_y, end_x = _displacement(direction, length)
  y, x = raster.coordinates(size)
  y, x = y - start_y, x - start_x
  cos, sin = jnp.asarray(raster.COS)[direction], jnp.asarray(raster.SIN)[direction]
  along, across = cos * x + sin * y, cos * y - sin * x
  body = (along >= 0) & (along <= length * raster.ONE)
  body &= 2 * jnp.abs(across) <= thickness * raster.ONE
  cap = 4 * (y**2 + x**2) <= thickness**2
  return body | cap | (4 * ((y - end_y) ** 2 + (x - end_x) ** 2) <= thickness**2)


def _displacement(direction: jax.Array, length: jax.Array) -> jax.Array:
  """Returns the (y, x) step of `length` pixels in a direction, int32 `[2, ...]`."""
  unit = jnp.stack([jnp.asarray(raster.SIN), jnp.asarray(raster.COS)])
  steps = unit[:, direction % raster.TURN] * length[None]
  return (steps + raster.ONE // 2) // raster.ONE
