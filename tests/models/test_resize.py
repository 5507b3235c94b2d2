"""Bilinear resizing equals `jax.image.resize` on all platforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder.models.ops import resize


def stock(x, size):
  shape = (len(x), size, size, x.shape[3])
  return jax.image.resize(x, shape, "bilinear", antialias=False)


@pytest.mark.parametrize(
  ("old", "new"), [(192, 128), (12, 8), (7, 12), (12, 5), (8, 8)]
)
def test_strided_slices_equal_the_matrix_product(old, new):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, old, old, 3)), jnp.float32)
  g = jnp.asarray(rng.normal(size=(2, new, new, 3)), jnp.float32)

  def phases(x):
    return resize._by_phases(resize._by_phases(x, new, 1), new, 2)

  @jax.jit
  def both(x, g):
    return [
      (y, *pull(g))
      for y, pull in (jax.vjp(phases, x), jax.vjp(lambda x: stock(x, new), x))
    ]

  # jax.image.resize computes the places in float32: 5e-6 of a pixel at 12 to 5.
  for found, expected in zip(*both(x, g), strict=True):
    np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_matrix_products_are_for_cpus(platform):
  x = jnp.zeros((2, 12, 12, 3))
  gradient = jax.jit(jax.grad(lambda x: jnp.square(resize.bilinear(x, 8)).sum()))
  text = gradient.trace(x).lower(lowering_platforms=(platform,)).as_text()
  assert ("dot_general" in text) == (platform == "cpu")
  assert "gather" not in text
  assert "scatter" not in text
