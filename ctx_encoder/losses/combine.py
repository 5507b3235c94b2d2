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
    weights: {name: factor, or function of the step, such as an
      Optax schedule}. Every term needs a weight, and every weight other than 0 a term.
    step: number of updates made; required if a weight is a function.

  Returns:
    The scalar total in float32, and `{"loss/<name>": scalar mean}`, unweighted.

  Raises:
    ValueError: a term has no weight, a weight has no term, or the step is missing.

  Example:
    ```python
    total, logged = combine(
      {"reconstruction": error, "style": lambda: style_loss(completed, originals, ...)},
      {"reconstruction": 1.0, "style": optax.linear_schedule(0.0, 10.0, 1000)},
      step,
    )
    ```
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


def _is_zero(weight: Weight) -> bool:
  return isinstance(weight, int | float) and weight == 0
