"""Pixels: uint8, [0, 1] and the networks' normalised values; resizing."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


def resize(x: jax.Array, shape: Sequence[int], *, antialias: bool = True) -> jax.Array:
  """`jax.image.resize(..., "linear")`, in a form that every compiler takes.

  Pixel i of n becomes a weighted mean of those around (i + 1/2) n_in / n - 1/2. XLA's
  default compiler for GPUs finds no tiling for JAX's matrix products (jax 0.10.2,
  H100), but takes batches of them. CPUs run JAX's.

  Args:
    x: `[B, ...]`, float.
    shape: new shape, with the same B.
    antialias: whether to average over more pixels where an axis gets shorter.

  Returns:
    An array of that shape.
  """
  if x.shape == tuple(shape):
    return x
  stock = functools.partial(
    jax.image.resize, shape=shape, method="linear", antialias=antialias
  )
  batched = functools.partial(_by_batches, shape=shape, antialias=antialias)
  return jax.lax.platform_dependent(x, cpu=stock, default=batched)


def _by_batches(x: jax.Array, shape: Sequence[int], antialias: bool) -> jax.Array:
  for axis, (before, after) in enumerate(zip(x.shape, shape, strict=True)):
    if before == after:
      continue
    ratio = before / after
    place = (np.arange(after)[:, None] + 0.5) * ratio - 0.5
    distance = np.abs(place - np.arange(before))
    weights = np.maximum(0, 1 - distance / (max(ratio, 1) if antialias else 1))
    weights /= weights.sum(axis=1, keepdims=True)
    batch = x.shape[0]  # symbolic while exporting
    weights = jnp.broadcast_to(weights.astype(x.dtype), (batch, after, before))
    x = jnp.moveaxis(x, axis, 1)
    rows = x.reshape(batch, before, math.prod(x.shape[2:]))
    y = jnp.matmul(weights, rows, precision="highest")
    x = jnp.moveaxis(y.reshape(batch, after, *x.shape[2:]), 1, axis)
  return x
