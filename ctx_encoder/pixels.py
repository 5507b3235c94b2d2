"""Between pixels as they are stored and shown, and as the networks see them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_SMALLEST_RANGE = 1 / 255  # of an image of one colour


class Scale(NamedTuple):
  """An affine map of pixel values, `[B, 1, 1, 1]` or `[1, 1, 1, 1]` each."""

  offset: jax.Array
  factor: jax.Array

  def normalize(self, images: jax.Array) -> jax.Array:
    """Maps `[B, H, W, C]` in [0, 1] to what the networks see."""
    return (images - self.offset) / self.factor

  def restore(self, images: jax.Array) -> jax.Array:
    """Maps what the networks give back to [0, 1], cutting off what lies outside."""
    return jnp.clip(images * self.factor + self.offset, 0, 1)


def scale_of(images: jax.Array, mask: jax.Array, normalization: str) -> Scale:
  """Returns the scale that a way of normalising gives to images.

  Args:
    images: `[B, H, W, C]` in [0, 1].
    mask: `[B, H, W, 1]`, 1 = hole.
    normalization: "symmetric" (2 x - 1), "unit" (x as it is), or "minmax" (each image's
      smallest value to -1 and its largest to 1, over the known pixels only, so that
      nothing of the hole is given away).
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
    # Where no pixel is known these are 1 and 0, and the range is the whole of [0, 1].
    low, high = jnp.minimum(low, high), jnp.maximum(low, high)
    width = jnp.maximum(high - low, _SMALLEST_RANGE)
    return Scale(low + width / 2, width / 2)
  raise ValueError(
    f"normalization must be symmetric, unit or minmax, not {normalization!r}."
  )


def from_uint8(images: jax.typing.ArrayLike) -> jax.Array:
  """Returns float32 in [0, 1] of uint8."""
  return jnp.asarray(images).astype(jnp.float32) / 255


def to_uint8(images: jax.Array) -> jax.Array:
  """Returns uint8 of values in [0, 1], rounded."""
  return jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.uint8)
