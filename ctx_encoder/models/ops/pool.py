"""Max pooling whose gradient is fast on CPUs.

XLA lowers the gradient of a maximum over windows to a scatter, which its CPU backend
runs on one thread. Here the forward pass keeps the position of each maximum, and the
gradient is a sum of shifted arrays.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from ctx_encoder.models.ops.platform import by_platform


def max_pool(x: jax.Array, window: int, stride: int, padding: str) -> jax.Array:
  """Maximum over square windows, as `flax.linen.max_pool`.

  Has reverse-mode derivatives only.

  Args:
    x: `[B, H, W, C]`.
    window: side of the windows, pixels.
    stride: distance between windows, pixels.
    padding: "SAME" or "VALID".

  Returns:
    `[B, H', W', C]`. Of equal values the first one gets the gradient.
  """
  sides, strides = (window, window), (stride, stride)
  pads = lax.padtype_to_pads(x.shape[1:3], sides, strides, padding)
  options = (window, stride, tuple((int(low), int(high)) for low, high in pads))
  return by_platform(
    lambda x: _fast_max_pool(x, *options), lambda x: _stock_max_pool(x, *options)
  )(x)


def _stock_max_pool(x, window, stride, pads):
  sides, strides = (1, window, window, 1), (1, stride, stride, 1)
  return lax.reduce_window(
    x, -jnp.inf, lax.max, sides, strides, ((0, 0), *pads, (0, 0))
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _fast_max_pool(x, window, stride, pads):
  return functools.reduce(jnp.maximum, _taps(x, window, stride, pads))


def _forward(x, window, stride, pads):
  taps = _taps(x, window, stride, pads)
  largest, position = taps[0], jnp.zeros(taps[0].shape, jnp.int8)
  # Positions do not come from comparing each tap with the maximum: XLA may compute `x`
  # separately for both sides, with different last bits, so that none is equal.
  for number, tap in enumerate(taps[1:], start=1):
    position = jnp.where(tap > largest, jnp.int8(number), position)
    largest = jnp.maximum(largest, tap)
  return largest, (_unfused(position), x)


def _backward(window, stride, pads, residuals, g):
  position, x = residuals
  _, pull = jax.vjp(lambda x: jnp.stack(_taps(x, window, stride, pads)), x)
  numbers = jnp.arange(window * window, dtype=jnp.int8)[:, None, None, None, None]
  return pull(jnp.where(position[None] == numbers, g[None], 0))


_fast_max_pool.defvjp(_forward, _backward)


def _taps(x, window, stride, pads):
  """Returns one `[B, H', W', C]` array for each position in the windows."""
  lowest = jnp.asarray(-jnp.inf, x.dtype)
  x = lax.pad(x, lowest, [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])
  h, w = ((n - window) // stride + 1 for n in x.shape[1:3])
  return [
    x[:, i : i + (h - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]
    for i in range(window)
    for j in range(window)
  ]


def _unfused(position):
  """Returns the same small integers as the result of a matrix product.

  XLA fuses other operations into each of their uses and would repeat them there.
  """
  side = math.gcd(position.shape[-1], 16)
  groups = (*position.shape[:-1], position.shape[-1] // side, side)
  same = position.astype(jnp.float32).reshape(groups) @ jnp.eye(side)
  return same.astype(position.dtype).reshape(position.shape)
