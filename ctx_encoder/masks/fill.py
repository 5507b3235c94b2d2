"""Filling holes: with a colour, or smoothly from the known pixels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ctx_encoder import pixels


def parse_fill(fill: str, mean: Sequence[float] | np.ndarray) -> np.ndarray | None:
  """Returns the colour of holes, `[3]` float32 in [0, 1], or None for a smooth fill.

  Args:
    fill: "black", "white", "mean", "#rrggbb" or "smooth".
    mean: the data set's mean colour, 3 values in [0, 255], for "mean".

  Raises:
    ValueError: `fill` is none of these.
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
    mask: `[..., H, W, 1]` of any type, 1 = hole.
    fill: a number or `[C]`, in the range of `image`; None = `smooth_fill`.

  Returns:
    Same shape and type as `image`.
  """
  if fill is None:
    return smooth_fill(image, mask)
  mask, fill = (jnp.asarray(x, image.dtype) for x in (mask, fill))
  fill = fill.reshape((1,) * (image.ndim - 1) + (-1,))
  return (1 - mask) * image + mask * fill


def smooth_fill(image: jax.Array, mask: jax.Array) -> jax.Array:
  """Fills holes smoothly from the pixels around them, by pull-push.

  Pull: averages of the known pixels at half the size, a quarter and so on, down to one
  pixel. Push: from the smallest on, unknown pixels of each size are filled from the
  next smaller one, resized bilinearly. Known pixels do not change.

  Args:
    image: `[..., H, W, C]` float, any range.
    mask: `[..., H, W, 1]` of any type, 1 = hole.

  Returns:
    Same shape and type as `image`; 0 in images without a known pixel.

  References: Gortler, Grzeszczuk, Szeliski and Cohen, The Lumigraph, SIGGRAPH 1996,
    section 3.4.
  """
  known = (1 - jnp.asarray(mask, image.dtype)).reshape(-1, *mask.shape[-3:])
  colors = image.reshape(-1, *image.shape[-3:]) * known
  return _pull_push(colors, known).reshape(image.shape)


def _pull_push(colors: jax.Array, known: jax.Array) -> jax.Array:
  """Fills images given as `colors` times `known`, the known share of each pixel."""
  if max(known.shape[1:3]) > 1:
    sums = _halved(known)
    share = jnp.minimum(sums, 1) / jnp.maximum(sums, 1e-6)
    coarser = _pull_push(_halved(colors) * share, sums * share)
    colors += (1 - known) * pixels.resize(coarser, colors.shape)
  return colors


def _halved(x: jax.Array) -> jax.Array:
  """Sums blocks of 2x2 pixels, smaller at the end of odd sizes."""
  window = (1, 2, 2, 1)
  return lax.reduce_window(x, 0.0, lax.add, window, window, "SAME")
