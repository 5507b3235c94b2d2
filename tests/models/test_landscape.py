"""The fully convolutional generator: sizes, shift of the input, attention, no grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder import models
from ctx_encoder.models.landscape import Attention

SMALL = models.Landscape.of_width(0.05)


@pytest.fixture(scope="module")
def variables():
  return jax.jit(SMALL.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 4)))


def inputs(height, width, count=2):
  rng = np.random.default_rng(0)
  image = rng.uniform(-1, 1, (count, height, width, 3))
  mask = np.zeros((count, height, width, 1))
  mask[:, height // 4 : height // 2, width // 4 : width // 2] = 1
  return jnp.asarray(np.concatenate([image, mask], axis=3), jnp.float32)


def test_parameters_of_the_full_network():
  shapes = jax.eval_shape(
    models.Landscape().init, jax.random.key(0), jnp.zeros((1, 64, 64, 4))
  )
  assert sum(x.size for x in jax.tree.leaves(shapes)) == 2_567_923


@pytest.mark.slow
def test_any_multiple_of_eight(variables):
  for height, width in ((16, 16), (24, 40)):
    outputs = SMALL.apply(variables, inputs(height, width))
    assert outputs.shape == (2, height, width, 3)
    assert outputs.dtype == jnp.float32
    assert np.isfinite(outputs).all()
  for shape in ((1, 20, 16, 4), (1, 16, 16, 3)):
    with pytest.raises(ValueError, match="multiples of 8"):
      jax.eval_shape(SMALL.apply, variables, jnp.zeros(shape))


def test_noise_acts_only_inside_the_hole_and_follows_the_keys(variables):
  x = inputs(16, 16)
  complete = x.at[..., 3].set(0)
  keys = jax.random.split(jax.random.key(1), 2)
  apply = jax.jit(SMALL.apply)
  np.testing.assert_array_equal(
    apply(variables, complete), apply(variables, complete, keys=keys)
  )
  one, same = (apply(variables, x, keys=keys) for _ in range(2))
  np.testing.assert_array_equal(one, same)
  assert (one != apply(variables, x, keys=keys[::-1])).any()


def test_attention_against_numpy():
  attention = Attention(heads=2, dtype=jnp.float32)
  rng = np.random.default_rng(3)
  x = rng.normal(size=(1, 3, 4, 8)).astype(np.float32)
  known = rng.uniform(size=(1, 3, 4, 1)).astype(np.float32)
  variables = attention.init(jax.random.key(0), jnp.asarray(x), jnp.asarray(known))
  params = jax.tree.map(lambda v: np.asarray(v, np.float64), variables["params"])
  params["factor"], params["prefer"] = np.array([2.0, 5.0]), np.array([1.0, -1.0])
  flat = x.reshape(12, 8).astype(np.float64)
  qkv = flat @ params["qkv"]["kernel"][0, 0] + params["qkv"]["bias"]
  heads = []
  for head in range(2):
    part = [qkv[:, i * 8 + head * 4 : i * 8 + head * 4 + 4] for i in range(3)]
    q, k = (v / np.sqrt((v**2).sum(1, keepdims=True) + 1e-6) for v in part[:2])
    logits = params["factor"][head] * q @ k.T
    logits = logits + params["prefer"][head] * known.reshape(1, 12)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    heads.append(shares @ part[2])
  joined = np.concatenate(heads, 1) @ params["join"]["kernel"][0, 0]
  expected = flat + joined + params["join"]["bias"]
  given = jax.tree.map(jnp.float32, params)
  found = attention.apply({"params": given}, jnp.asarray(x), jnp.asarray(known))
  np.testing.assert_allclose(np.reshape(found, (12, 8)), expected, atol=1e-5)


def test_width_scales_the_channels():
  assert SMALL.channels == (8, 8, 8)
  assert models.Landscape.of_width(0.5).channels == (16, 32, 80)
  assert models.Landscape.of_width(1.0) == models.Landscape()
