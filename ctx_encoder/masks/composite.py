"""Masks and images together: the hole's colour, the masked image."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def parse_fill(fill: str, mean: Sequence[float] | np.ndarray) -> np.ndarray:
  """Returns the colour of a hole, `[3]` float32 in [0, 1].

  Args:
    fill: black, white, mean or #rrggbb.
    mean: the data set's mean colour, 3 values in [0, 255]; used where fill is mean.
  Raises:
    ValueError: fill is none of these.
  """
  if fill in ("black", "white"):
    return np.full(3, fill == "white", np.float32)
  if fill == "mean":
    return np.asarray(mean, np.float32).reshape(3) / np.float32(255)
  digits = fill.removeprefix("#")
  if len(fill) != 7 or len(digits) != 6 or set(digits) - set("0123456789abcdefABCDEF"):
    raise ValueError(f"A fill is black, white, mean or #rrggbb, not {fill!r}.")
  return np.frombuffer(bytes.fromhex(digits), np.uint8) / np.float32(255)


def masked_image(
  image: jax.Array, mask: jax.Array, fill: jax.Array | np.ndarray | float
) -> jax.Array:
  """Returns `(1 - mask) * image + mask * fill`.

  Args:
    image: `[..., H, W, C]` float, any range.
    mask: `[..., H, W, 1]`, 1 = hole.
    fill: a number or `[C]`, in the range of `image`.
  Returns:
    Same shape as `image`.
  """
  fill = jnp.asarray(fill, image.dtype)
  fill = fill.reshape((1,) * (image.ndim - 1) + (-1,))
  return (1 - mask) * image + mask * fill
