"""Conversions between uint8 pixels, [0, 1] and the networks' normalised values."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_SMALLEST_RANGE = 1 / 255  # assumed for an image of one colour


class Scale(NamedTuple):
  """An affine map of pixel values; both arrays `[B, 1, 1, 1]` or `[1, 1, 1, 1]`."""

  offset: jax.Array
  factor: jax.Array

  def normalize(self, images: jax.Array) -> jax.Array:
    """Maps `[B, H, W, C]` in [0, 1] to the networks' range."""
    return (images - self.offset) / self.factor

  def restore(self, images: jax.Array) -> jax.Array:
    """Maps normalised `[B, H, W, C]` to [0, 1], clipped."""
    return jnp.clip(images * self.factor + self.offset, 0, 1)


def scale_of(images: jax.Array, mask: jax.Array, normalization: str) -> Scale:
  """Returns the scale of a normalisation for the given images.

  Args:
    images: `[B, H, W, C]` in [0, 1].
    mask: `[B, H, W, 1]`, 1 = hole.
    normalization: "symmetric" (2 x - 1), "unit" (unchanged), or "minmax" (maps each
      image's known pixels to [-1, 1]; pixels of the hole are not used).

  Raises:
    ValueError: `normalization` is none of these.
  """
  if normalization == "symmetric":
    return Scale(jnp.full((1, 1, 1, 1), 0.5), jnp.full((1, 1, 1, 1), 0.5))
  if normalization == "unit":
    return Scale(jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))
  if normalization == "minmax":
    known = jnp.broadcast_to(mask == 0, images.shape)
    axes = (1, 2, 3)
    low = jnp.min(images, axes, keepdims=True, where=known, initial=1.0)
    high = jnp.max(images, axes, keepdims=True, where=known, initial=0.0)
    # Without a known pixel these are 1 and 0: then the range is [0, 1].
    low, high = jnp.minimum(low, high), jnp.maximum(low, high)
    width = jnp.maximum(high - low, _SMALLEST_RANGE)
    return Scale(low + width / 2, width / 2)
  raise ValueError(
    f"normalization must be symmetric, unit or minmax, not {normalization!r}."
  )


def from_uint8(images: jax.typing.ArrayLike) -> jax.Array:
  """Maps uint8 to float32 in [0, 1]."""
  return jnp.asarray(images).astype(jnp.float32) / 255


def to_uint8(images: jax.Array) -> jax.Array:
  """Maps [0, 1] to uint8, clipped and rounded to nearest."""
  return jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.uint8)
