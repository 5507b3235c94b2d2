"""The weighted sum of loss terms, with weights that may depend on the step."""

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
  """Weighted sum of loss terms, and the mean of each term by name.

  L = sum_k weights[k] * mean(terms[k]).

  Args:
    terms: {name: `[B]` or scalar float values, or a function without arguments that
      returns them}. Terms whose weight is the number 0 are neither computed nor
      returned.
    weights: {name: factor, or function of the step, such as `warm_up`, `by_step` or an
      Optax schedule}. Every term needs a weight, and every weight other than 0 a term.
    step: number of updates made; required if a weight is a function.

  Returns:
    The scalar total in float32, and `{"loss/<name>": scalar mean}`, unweighted.

  Raises:
    ValueError: a term has no weight, a weight has no term, or the step is missing.

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
        raise ValueError(f"The weight of {name!r} depends on the step: pass `step`.")
      weight = weight(jnp.asarray(step))
    values = term() if callable(term) else term
    means[f"loss/{name}"] = mean = jnp.mean(values.astype(jnp.float32))
    total = total + weight * mean
  return total, means


def warm_up(weight: float, steps: int, *, start: int = 0) -> Weight:
  """A weight that rises linearly from 0 to `weight`.

  Args:
    weight: the final value.
    steps: duration of the rise in steps; 0 = a jump.
    start: first step of the rise; the weight is 0 before it.

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
  """A piecewise constant weight.

  Args:
    weights: {step: weight from this step on}; step 0 is required.

  Returns:
    A function of the step, for `combine`.

  Raises:
    ValueError: the first step is not 0.

  Example: by_step({0: 0.0, 1000: 0.001}) adds the adversarial loss after 1000 steps.
  """
  if min(weights, default=-1) != 0:
    raise ValueError(f"The first step must be 0, not as in {dict(weights)}.")
  starts = sorted(weights)

  def schedule(step: jax.Array) -> jax.Array:
    values = jnp.asarray([weights[start] for start in starts], jnp.float32)
    return values[jnp.searchsorted(jnp.asarray(starts), step, side="right") - 1]

  return schedule


def _is_zero(weight: Weight) -> bool:
  return isinstance(weight, int | float) and weight == 0
