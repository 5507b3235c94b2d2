"""One number from many terms."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp


def combine(
  terms: Mapping[str, jax.Array], weights: Mapping[str, float]
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Weighted sum of loss terms, and each term by name.

  L = sum_k weights[k] * mean(terms[k]).

  Args:
    terms: name to `[B]` (or scalar) float values.
    weights: name to factor; every term needs one, and every weight that is not 0 a
      term.

  Returns:
    The scalar total in float32, and `{"loss/<name>": scalar mean}` without the weights.

  Raises:
    ValueError: a term without a weight, or a non-zero weight without a term.
  """
  missing = sorted(set(terms) - set(weights))
  unused = sorted(k for k, weight in weights.items() if weight and k not in terms)
  if missing or unused:
    raise ValueError(
      f"Terms without a weight: {missing}; weights without a term: {unused}."
    )
  means = {name: jnp.mean(term.astype(jnp.float32)) for name, term in terms.items()}
  total = sum(
    (weights[name] * mean for name, mean in means.items()), jnp.zeros((), jnp.float32)
  )
  return total, {f"loss/{name}": mean for name, mean in means.items()}
