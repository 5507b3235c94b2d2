"""Bilinear resizing that every compiler takes.

`jax.image.resize` is a matrix product with the interpolation weights, in the highest
precision, for which XLA's default GPU compiler finds no tiling (jax 0.10.2, H100).
"""

import math
from fractions import Fraction

import jax
from jax import lax

from ctx_encoder.models.ops.platform import by_platform


def bilinear(x: jax.Array, size: int) -> jax.Array:
  """Resizes bilinearly without antialiasing, as Keras's `Resizing`.

  Pixel i of n becomes the weighted mean of the two pixels around
  (i + 1/2) n_in / n - 1/2, or the nearest one at the borders. Has reverse-mode
  derivatives only.

  Args:
    x: `[B, H, W, C]`.
    size: new height and width, pixels.

  Returns:
    `[B, size, size, C]`.
  """
  shape = (x.shape[0], size, size, x.shape[3])
  if x.shape == shape:
    return x
  return by_platform(
    lambda x: jax.image.resize(x, shape, "bilinear", antialias=False),
    lambda x: _by_phases(_by_phases(x, size, 1), size, 2),
  )(x)


def _by_phases(x: jax.Array, size: int, axis: int) -> jax.Array:
  """Resizes an axis by sums of strided slices.

  With n_in / n = p / q in lowest terms, every q-th new pixel is p old ones further on
  and has the same weights.
  """
  ratio = Fraction(x.shape[axis], size)
  last = (size // ratio.denominator - 1) * ratio.numerator
  end = x.shape[axis]
  first, final = (lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, end - 1))
  x = lax.concatenate([first, x, final], axis)
  phases = []
  for phase in range(ratio.denominator):
    place = (phase + Fraction(1, 2)) * ratio + Fraction(1, 2)  # in the padded array
    low = math.floor(place)
    left, right = (
      lax.slice_in_dim(x, start, start + last + 1, ratio.numerator, axis)
      for start in (low, low + 1)
    )
    phases.append(left * float(low + 1 - place) + right * float(place - low))
  y = lax.concatenate([lax.expand_dims(p, [axis + 1]) for p in phases], axis + 1)
  return y.reshape(*x.shape[:axis], size, *x.shape[axis + 1 :])
