"""Dilation of holes, rings around them, and distances to known pixels.

Masks are `[..., H, W, 1]` of any type, 1 = hole; results are float32 of their shape.
"""

import jax
import jax.numpy as jnp


def dilate(mask: jax.Array, width: int) -> jax.Array:
  """Dilates the hole by a square of side 2 `width` + 1 pixels.

  Raises:
    ValueError: the width is negative.
  """
  if width < 0:
    raise ValueError(f"width must be 0 or more, not {width}.")
  mask = jnp.asarray(mask, jnp.float32)
  for axis in (mask.ndim - 3, mask.ndim - 2):
    window = [1] * mask.ndim
    window[axis] = 2 * width + 1
    mask = jax.lax.reduce_window(
      mask, -jnp.inf, jax.lax.max, window, [1] * mask.ndim, "SAME"
    )
  return mask


def border_ring(mask: jax.Array, width: int) -> jax.Array:
  """Returns the known pixels within `width` pixels of the hole along both axes.

  This is the overlap of Pathak et al.; a width of 0 gives an empty ring.

  Raises:
    ValueError: the width is negative.
  """
  return dilate(mask, width) - jnp.asarray(mask, jnp.float32)


def distance_to_known(mask: jax.Array) -> jax.Array:
  """Returns each pixel's Euclidean distance to the nearest known pixel, in pixels.

  It is 0 outside the hole, 1 at its border, and infinite in images without a known
  pixel.
  """
  known = mask[..., 0] < 0.5
  height, width = known.shape[-2:]
  rows = jax.lax.broadcasted_iota(jnp.float32, known.shape, known.ndim - 2)
  axis = known.ndim - 2
  above = jax.lax.cummax(jnp.where(known, rows, -jnp.inf), axis)
  below = jax.lax.cummin(jnp.where(known, rows, jnp.inf), axis, reverse=True)
  in_column = jnp.square(jnp.minimum(rows - above, below - rows))
  shape = (*known.shape[:-2], height, width, width)
  here = jax.lax.broadcasted_iota(jnp.float32, shape, len(shape) - 2)
  there = jax.lax.broadcasted_iota(jnp.float32, shape, len(shape) - 1)
  squares = in_column[..., None, :] + jnp.square(here - there)
  return jnp.sqrt(jnp.min(squares, axis=-1))[..., None]
