"""The weighted sum of losses, and weights that depend on the step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctx_encoder import losses


def test_combine():
  terms = {
    "reconstruction": jnp.asarray([1.0, 3.0]),
    "adversarial": jnp.asarray([0.25, 0.5, 0.75], jnp.bfloat16),
    "style": jnp.asarray(7.0),
  }
  weights = {"reconstruction": 0.999, "adversarial": 0.001, "style": 0, "unused": 0.0}
  total, named = jax.jit(lambda terms: losses.combine(terms, weights))(terms)
  assert (total.shape, total.dtype) == ((), jnp.float32)
  np.testing.assert_allclose(total, 0.999 * 2 + 0.001 * 0.5, rtol=1e-6)
  assert named == {
    "loss/reconstruction": 2,
    "loss/adversarial": 0.5,
  }
  assert {x.dtype for x in named.values()} == {jnp.dtype("float32")}
  grads = jax.grad(lambda terms: losses.combine(terms, weights)[0])(terms)
  np.testing.assert_allclose(grads["reconstruction"], [0.4995, 0.4995])
  assert grads["style"] == 0


def test_combine_without_terms():
  total, named = losses.combine({}, {"reconstruction": 0.0})
  assert (total, total.dtype) == (0, jnp.float32)
  assert named == {}


def test_combine_of_nan_is_nan():
  total, named = losses.combine({"a": jnp.asarray([1.0, np.nan])}, {"a": 0.5})
  assert np.isnan(total)
  assert np.isnan(named["loss/a"])


def test_a_term_of_weight_0_is_not_computed():
  def expensive():
    raise AssertionError

  def cheap():
    return jnp.asarray([2.0, 4.0])

  terms = {"expensive": expensive, "cheap": cheap}
  total, named = losses.combine(terms, {"expensive": 0.0, "cheap": 2.0})
  assert total == 6
  assert named == {"loss/cheap": 3}


def test_weights_may_be_functions_of_the_step():
  terms = {"a": jnp.asarray([1.0]), "b": jnp.asarray([10.0])}
  weights = {
    "a": optax.linear_schedule(0.0, 2.0, 4, transition_begin=1),
    "b": optax.linear_schedule(1.0, 0.0, transition_steps=10),
  }
  total = jax.jit(lambda step: losses.combine(terms, weights, step)[0])
  for step, a in [(0, 0), (1, 0), (2, 0.5), (3, 1), (5, 2), (50, 2)]:
    b = max(0, 1 - step / 10)
    np.testing.assert_allclose(total(step), a + 10 * b, rtol=1e-6)
  with pytest.raises(ValueError, match=r"'a' depends on the step: pass `step`"):
    losses.combine(terms, weights)


def test_combine_refuses_terms_and_weights_that_do_not_match():
  terms = {"style": jnp.zeros(2), "reconstruction": jnp.zeros(2)}
  with pytest.raises(ValueError, match=r"without a weight: \['style'\]"):
    losses.combine(terms, {"reconstruction": 1.0})
  weights = {"style": 1.0, "reconstruction": 1.0, "adversarial": 0.001}
  with pytest.raises(ValueError, match=r"without a term: \['adversarial'\]"):
    losses.combine(terms, weights)
