"""Masks and images together: the hole's colour, the masked image."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def parse_fill(fill: str, mean: Sequence[float] | np.ndarray) -> np.ndarray | None:
  """Returns the colour of a hole, `[3]` float32 in [0, 1], or None for a smooth fill.

  Args:
    fill: black, white, mean, #rrggbb, or smooth.
    mean: the data set's mean colour, 3 values in [0, 255]; used where fill is mean.
  Raises:
    ValueError: fill is none of these.
  """
  if fill == "smooth":
    return None
  if fill in ("black", "white"):
    return np.full(3, fill == "white", np.float32)
  if fill == "mean":
    return np.asarray(mean, np.float32).reshape(3) / np.float32(255)
  digits = fill.removeprefix("#")
  if len(fill) != 7 or len(digits) != 6 or set(digits) - set("0123456789abcdefABCDEF"):
    raise ValueError(f"A fill is black, white, mean, smooth or #rrggbb, not {fill!r}.")
  return np.frombuffer(bytes.fromhex(digits), np.uint8) / np.float32(255)


def masked_image(
  image: jax.Array, mask: jax.Array, fill: jax.Array | np.ndarray | float | None
) -> jax.Array:
  """Returns `(1 - mask) * image + mask * fill`.

  Args:
    image: `[..., H, W, C]` float, any range.
    mask: `[..., H, W, 1]`, 1 = hole.
    fill: a number or `[C]`, in the range of `image`; None = see `smooth_fill`.
  Returns:
    Same shape as `image`.
  """
  if fill is None:
    return smooth_fill(image, mask)
  fill = jnp.asarray(fill, image.dtype)
  fill = fill.reshape((1,) * (image.ndim - 1) + (-1,))
  return (1 - mask) * image + mask * fill


def smooth_fill(image: jax.Array, mask: jax.Array) -> jax.Array:
  """Fills holes with what lies around them, from near to far, by pull-push.

  Pull: images of half the size, a quarter and so on are averages of the known pixels
  alone, down to one pixel. Push: each is filled, as far as too little of it is known,
  with the next smaller one, resized bilinearly. Known pixels stay as they are.

  Args:
    image: `[..., H, W, C]` float, any range.
    mask: `[..., H, W, 1]`, 1 = hole.
  Returns:
    Same shape as `image`; 0 where nothing at all is known.

  References: Gortler, Grzeszczuk, Szeliski and Cohen, The Lumigraph, SIGGRAPH 1996,
    section 3.4.
  """
  known = (1 - mask).reshape(-1, *mask.shape[-3:]).astype(image.dtype)
  colors = image.reshape(-1, *image.shape[-3:]) * known
  return _pull_push(colors, known).reshape(image.shape)


def _pull_push(colors: jax.Array, known: jax.Array) -> jax.Array:
  """Returns filled images, of `colors` multiplied by how much is `known`, 0 to 1."""
  if max(known.shape[1:3]) > 1:
    sums = _halved(known)
    share = jnp.minimum(sums, 1) / jnp.maximum(sums, 1e-6)
    coarser = _pull_push(_halved(colors) * share, sums * share)
    colors += (1 - known) * jax.image.resize(coarser, colors.shape, "linear")
  return colors


def _halved(x: jax.Array) -> jax.Array:
  """Returns sums over 2x2 pixels; the last row and column may be of less."""
  window = (1, 2, 2, 1)
  return lax.reduce_window(x, 0.0, lax.add, window, window, "SAME")
