"""The neighbourhood of the hole: what lies around it, and how deep in it a pixel is."""

import jax
import jax.numpy as jnp


def dilate(mask: jax.Array, width: int) -> jax.Array:
  """Returns the hole grown by `width` pixels to all eight sides.

  Args:
    mask: `[..., H, W, 1]`, 1 = hole.
    width: pixels, 0 or more.

  Returns:
    Same shape and type as `mask`.
  """
  if width < 0:
    raise ValueError(f"The width must be 0 or more, not {width}.")
  for axis in (mask.ndim - 3, mask.ndim - 2):
    window = [1] * mask.ndim
    window[axis] = 2 * width + 1
    mask = jax.lax.reduce_window(
      mask, -jnp.inf, jax.lax.max, window, [1] * mask.ndim, "SAME"
    )
  return mask


def border_ring(mask: jax.Array, width: int) -> jax.Array:
  """Returns the known pixels within `width` pixels of the hole.

  The distance is the larger of the two along the axes: what Pathak's overlap is.

  Args:
    mask: `[..., H, W, 1]`, 1 = hole.
    width: pixels, 0 or more; 0 gives an empty ring.

  Returns:
    Same shape and type as `mask`.
  """
  return dilate(mask, width) - mask


def distance_to_known(mask: jax.Array) -> jax.Array:
  """Returns the Euclidean distance of each pixel to the nearest known one.

  Args:
    mask: `[..., H, W, 1]`, 1 = hole.

  Returns:
    Float32 of the same shape, in pixels: 0 outside the hole, 1 at its border, and
    infinite where an image has no known pixel.
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
