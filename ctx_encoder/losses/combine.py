"""One number from many terms, with weights that may change over the steps."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

Term = jax.Array | Callable[[], jax.Array]
Weight = float | Callable[[jax.Array], jax.Array]


def combine(
  terms: Mapping[str, Term],
  weights: Mapping[str, Weight],
  step: jax.Array | int | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Weighted sum of loss terms, and each term by name.

  L = sum_k weights[k] * mean(terms[k]).

  Args:
    terms: name to `[B]` (or scalar) float values, or to a function without arguments
      that returns them. Where the weight is the number 0 it is not called, and the
      term neither counts nor is returned.
    weights: name to factor, or to a function of the step, such as `warm_up`, `by_step`
      or any Optax schedule; every term needs one, and every weight that is not 0 a
      term.
    step: updates made so far; needed where a weight is a function.

  Returns:
    The scalar total in float32, and `{"loss/<name>": scalar mean}` without the weights.

  Raises:
    ValueError: a term without a weight, a weight without a term, or no step.

  Example:
    total, logged = combine(
      {"reconstruction": error, "style": lambda: style_loss(completed, originals, ...)},
      {"reconstruction": 1.0, "style": warm_up(10.0, steps=1000)},
      step,
    )
  """
  missing = sorted(set(terms) - set(weights))
  unused = sorted(k for k, w in weights.items() if k not in terms and not _is_zero(w))
  if missing or unused:
    raise ValueError(
      f"Terms without a weight: {missing}; weights without a term: {unused}."
    )
  total, means = jnp.zeros((), jnp.float32), {}
  for name, term in terms.items():
    weight = weights[name]
    if _is_zero(weight):
      continue
    if callable(weight):
      if step is None:
        raise ValueError(f"The weight of {name!r} changes over the steps: give `step`.")
      weight = weight(jnp.asarray(step))
    values = term() if callable(term) else term
    means[f"loss/{name}"] = mean = jnp.mean(values.astype(jnp.float32))
    total = total + weight * mean
  return total, means


def warm_up(weight: float, steps: int, *, start: int = 0) -> Weight:
  """A weight that rises from 0 to `weight` in a straight line.

  Args:
    weight: what it rises to.
    steps: how long it rises; 0 = at once.
    start: step until which it is 0.

  Returns:
    A function of the step, for `combine`.

  Raises:
    ValueError: `steps` or `start` is negative.
  """
  if steps < 0 or start < 0:
    raise ValueError(f"steps and start must be 0 or more, not {steps} and {start}.")

  def schedule(step: jax.Array) -> jax.Array:
    if not steps:
      return jnp.where(step >= start, jnp.float32(weight), 0.0)
    return weight * jnp.clip((step - start) / steps, 0.0, 1.0)

  return schedule


def by_step(weights: Mapping[int, float]) -> Weight:
  """A weight that is set anew at given steps.

  Args:
    weights: step to the weight from there on; one must be for step 0.

  Returns:
    A function of the step, for `combine`.

  Raises:
    ValueError: there is none for step 0, or a negative step.

  Example: by_step({0: 0.0, 1000: 0.001}) lets the discriminator in after 1000 steps.
  """
  if min(weights, default=-1) != 0:
    raise ValueError(f"The first step with a weight must be 0: {dict(weights)}.")
  starts = sorted(weights)

  def schedule(step: jax.Array) -> jax.Array:
    values = jnp.asarray([weights[start] for start in starts], jnp.float32)
    return values[jnp.searchsorted(jnp.asarray(starts), step, side="right") - 1]

  return schedule


def _is_zero(weight: Weight) -> bool:
  return isinstance(weight, int | float) and weight == 0
