"""L-BFGS on many problems side by side, each with its own step and its own past.

There is no line search: the first step that lowers the loss is taken, which is nearly
always the first one tried. So an update evaluates the loss and its gradient once.

References: Liu and Nocedal, On the limited memory BFGS method for large scale
  optimization, Mathematical Programming 45, 1989.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[jax.Array], jax.Array]

_LBFGS = optax.scale_by_lbfgs(memory_size=10)


class State(NamedTuple):
  """Where the `B` problems are.

  x, slope, direction: `[B, ...]`, the point, the gradient there, and where to go.
  value, length: `[B]`, the loss there, infinite at the start, and how far to go.
  memory: of past steps and gradients.
  """

  x: jax.Array
  slope: jax.Array
  direction: jax.Array
  value: jax.Array
  length: jax.Array
  memory: Any


def start(x: jax.Array) -> State:
  """Returns the state before the first update, which evaluates the loss at `x` itself.

  Args:
    x: `[B, ...]` float32.
  """
  nowhere, unknown = jnp.zeros_like(x), jnp.full(len(x), jnp.inf)
  memory = jax.vmap(_LBFGS.init)(x)
  return State(x, nowhere, nowhere, unknown, jnp.ones(len(x)), memory)


def update(state: State, loss: Loss) -> State:
  """Goes a step where that lowers the loss; elsewhere the next one is half as long.

  Args:
    state: of `start` or the last update.
    loss: `[B, ...]` to `[B]`, of which each value depends on its own x alone. A NaN is
      not lower than anything: where the first value is one, it stays infinite.
  """
  step = _wide(state.length, state.x) * state.direction
  x = state.x + step
  value, pull = jax.vjp(loss, x)
  (slope,) = pull(jnp.ones_like(value))
  newton, memory = jax.vmap(_LBFGS.update)(slope, state.memory, x)
  # Where the loss is curved the other way, L-BFGS knows no minimum to go to.
  convex = (_dot(slope - state.slope, step) > 0) & (_dot(newton, slope) > 0)
  direction = _where(convex, -newton, _descent(slope))
  lower = value < state.value
  # The first value is that of the point itself, and no step in any direction.
  remember = lower & (convex | jnp.isinf(state.value))
  return State(
    x=_where(lower, x, state.x),
    slope=_where(lower, slope, state.slope),
    direction=_where(lower, direction, state.direction),
    value=_where(lower, value, state.value),
    length=_where(lower, jnp.ones_like(value), state.length / 2),
    memory=jax.tree.map(functools.partial(_where, remember), memory, state.memory),
  )


def _descent(slope: jax.Array) -> jax.Array:
  """Returns the way of steepest descent, of length 1 where it is not 0."""
  norm = jnp.sqrt(_dot(slope, slope))
  return -slope / _wide(jnp.where(norm > 0, norm, 1), slope)


def _dot(one: jax.Array, other: jax.Array) -> jax.Array:
  return jnp.sum(one * other, axis=tuple(range(1, one.ndim)))


def _where(condition: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
  return jnp.where(_wide(condition, one), one, other)


def _wide(values: jax.Array, like: jax.Array) -> jax.Array:
  return values.reshape(-1, *[1] * (like.ndim - 1))
