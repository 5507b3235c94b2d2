"""Integer arithmetic for drawing masks, shared by all kinds."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# TURN directions on a circle; COS and SIN are integers in units of 1 / ONE.
TURN = 256
ONE = 1024
_ANGLES = 2 * np.pi * np.arange(TURN) / TURN
COS = np.rint(ONE * np.cos(_ANGLES)).astype(np.int32)
SIN = np.rint(ONE * np.sin(_ANGLES)).astype(np.int32)


def coordinates(size: int) -> tuple[jax.Array, jax.Array]:
  """Returns the rows y and the columns x of all pixels, each `[size, size]` int32."""
  return (
    jax.lax.broadcasted_iota(jnp.int32, (size, size), 0),
    jax.lax.broadcasted_iota(jnp.int32, (size, size), 1),
  )


def as_mask(hole: jax.Array) -> jax.Array:
  """Converts `[H, W]` bool to `[H, W, 1]` float32."""
  return hole[..., None].astype(jnp.float32)


def pixels(fraction: float, size: int) -> int:
  """Converts a share of the side to pixels: rounded, from 1 to `size`."""
  return min(size, max(1, math.floor(fraction * size + 0.5)))


def budget(area: float, size: int) -> int:
  """Converts a share of the area to pixels: rounded down, from 1 to `size`^2."""
  return min(size**2, max(1, math.floor(area * size**2)))


def integers(bits: jax.Array, low: Any, high: Any) -> jax.Array:
  """Maps random uint32 to int32 from `low` to `high` inclusive.

  Drawing the bits of a mask at once compiles several times as fast as drawing each
  number. The modulo favours low numbers by less than (high - low) / 2^32.
  """
  span = jnp.asarray(high - low + 1, jnp.uint32)
  return low + (bits % span).astype(jnp.int32)


def union(
  draw: Callable[[Any], jax.Array], parts: Any, size: int, budget: int
) -> jax.Array:
  """Adds parts in order, skipping those that would exceed `budget` pixels."""

  def add(union, part):
    candidate = union | draw(part)
    return jnp.where(jnp.sum(candidate) <= budget, candidate, union), None

  return jax.lax.scan(add, jnp.zeros((size, size), bool), parts)[0]
