"""Batched L-BFGS: independent problems, each with its own step size and history.

There is no line search: a step is taken if it lowers the loss, and halved otherwise.
The first step tried is nearly always taken. Each update evaluates the loss and its
gradient once.

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
  """State of `B` problems.

  Attributes:
    x: `[B, ...]`, current points.
    gradient: `[B, ...]`, gradients at `x`.
    direction: `[B, ...]`, search directions.
    value: `[B]`, losses at `x`; infinite before the first update.
    length: `[B]`, next step sizes, as multiples of `direction`.
    memory: past steps and gradient differences.
  """

  x: jax.Array
  gradient: jax.Array
  direction: jax.Array
  value: jax.Array
  length: jax.Array
  memory: Any


def start(x: jax.Array) -> State:
  """Returns the state before the first update, which evaluates the loss at `x`.

  Args:
    x: `[B, ...]` float32.
  """
  zeros, unknown = jnp.zeros_like(x), jnp.full(len(x), jnp.inf)
  memory = jax.vmap(_LBFGS.init)(x)
  return State(x, zeros, zeros, unknown, jnp.ones(len(x)), memory)


def update(state: State, loss: Loss) -> State:
  """Takes the step of each problem if it lowers the loss; otherwise halves it.

  Args:
    state: from `start` or the last update.
    loss: `[B, ...]` to `[B]`; each value depends only on its own problem's x. A step to
      a NaN is never taken; if the first value is NaN, `value` stays infinite.
  """
  step = _expand(state.length, state.x) * state.direction
  x = state.x + step
  value, vjp = jax.vjp(loss, x)
  (gradient,) = vjp(jnp.ones_like(value))
  newton, memory = jax.vmap(_LBFGS.update)(gradient, state.memory, x)
  # Where the curvature is negative, use steepest descent instead.
  convex = (_dot(gradient - state.gradient, step) > 0) & (_dot(newton, gradient) > 0)
  direction = _where(convex, -newton, _descent(gradient))
  lower = value < state.value
  # The first update evaluates the start and makes no step, so it has no curvature.
  remember = lower & (convex | jnp.isinf(state.value))
  return State(
    x=_where(lower, x, state.x),
    gradient=_where(lower, gradient, state.gradient),
    direction=_where(lower, direction, state.direction),
    value=_where(lower, value, state.value),
    length=_where(lower, jnp.ones_like(value), state.length / 2),
    memory=jax.tree.map(functools.partial(_where, remember), memory, state.memory),
  )


def _descent(gradient: jax.Array) -> jax.Array:
  """Returns the direction of steepest descent, of length 1, or 0 for a 0 gradient."""
  norm = jnp.sqrt(_dot(gradient, gradient))
  return -gradient / _expand(jnp.where(norm > 0, norm, 1), gradient)


def _dot(one: jax.Array, other: jax.Array) -> jax.Array:
  return jnp.sum(one * other, axis=tuple(range(1, one.ndim)))


def _where(condition: jax.Array, one: jax.Array, other: jax.Array) -> jax.Array:
  return jnp.where(_expand(condition, one), one, other)


def _expand(values: jax.Array, like: jax.Array) -> jax.Array:
  return values.reshape(-1, *[1] * (like.ndim - 1))
