"""BatchNorm and spectral norms: statistics, folding, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from modules import (
  example_keys,
  random_images,
  random_variables,
  shapes_of,
)

from ctx_encoder.models import (
  GENERATORS,
  Settings,
  fold_batch_norm,
  layers,
)

NARROW = Settings(width=1 / 32)
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("photos", {"bottleneck": "conv", "upsample": "resize"}),
    slow("photos", {}),
    slow("monet", {}),
    ("monet", {"skips": True}),
  ],
)
def test_folding_batch_norm_keeps_the_outputs(name, options):
  generator = GENERATORS[name](16, settings=NARROW, **options)
  variables = random_variables(generator, 2, 16, 16, 3)
  images = random_images(2, 16, 16, 3)
  folded, folded_variables = fold_batch_norm(generator, variables)
  assert folded_variables["batch_stats"] == {}
  assert not any("norm" in path for path in flatten_dict(folded_variables["params"]))
  np.testing.assert_allclose(
    jax.jit(folded.apply)(folded_variables, images),
    jax.jit(generator.apply)(variables, images),
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.slow
def test_batch_statistics_are_averaged_over_devices():
  """`jax.vmap` with an axis name averages as `jax.pmap` does, on one device."""
  shape = (4, 16, 16, 3)
  images, keys = random_images(*shape), example_keys(4)
  images = images.at[2:].add(1.0)  # halves so unlike that either's statistics are wrong
  whole, split = (
    GENERATORS["monet"](16, settings=Settings(width=1 / 32, axis_name=axis))
    for axis in (None, "devices")
  )
  variables = random_variables(whole, *shape)
  assert shapes_of(split, *shape)[0] == shapes_of(whole, *shape)[0]

  def train(module, images, keys):
    return module.apply(variables, images, train=True, keys=keys, mutable="batch_stats")

  expected, statistics = jax.jit(functools.partial(train, whole))(images, keys)
  mapped = jax.vmap(functools.partial(train, split), axis_name="devices")
  actual, averaged = jax.jit(mapped)(
    images.reshape(2, 2, *shape[1:]), keys.reshape(2, 2)
  )
  np.testing.assert_allclose(actual.reshape(shape), expected, atol=2e-5)
  for path, value in flatten_dict(averaged, sep="/").items():
    whole_batch = flatten_dict(statistics, sep="/")[path]
    np.testing.assert_array_equal(value[0], value[1], err_msg=path)
    np.testing.assert_allclose(value[0], whole_batch, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [slow("photos"), "monet"])
def test_unbiased_statistics_equal_those_of_the_batches(name):
  """After updates on one batch they are its statistics, so both modes agree."""
  generator = GENERATORS[name](16, settings=Settings(width=1 / 32, dropout=0.0))
  x = jax.random.normal(jax.random.key(0), (8, 16, 16, 3))
  variables = random_variables(generator, *x.shape)
  start = {"mean": 0.0, "var": 1.0}
  stats = jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.full_like(leaf, start[path[-1].key]),
    variables["batch_stats"],
  )
  params = {"params": variables["params"]}
  train = jax.jit(
    functools.partial(generator.apply, train=True, mutable=["batch_stats"])
  )
  for _ in range(3):
    expected, changed = train(params | {"batch_stats": stats}, x)
    stats = changed["batch_stats"]
  unbiased = generator.unbiased_statistics(stats, jnp.int32(3))
  actual = jax.jit(generator.apply)(params | {"batch_stats": unbiased}, x)
  np.testing.assert_allclose(actual, expected, atol=2e-4)


def test_statistics_without_updates_are_unchanged():
  generator = GENERATORS["photos"](16, settings=NARROW)
  stats = random_variables(generator, 1, 16, 16, 3)["batch_stats"]
  same = generator.unbiased_statistics(stats, jnp.int32(0))
  jax.tree.map(np.testing.assert_array_equal, same, stats)


def test_unbiased_statistics_compile_once_for_all_steps():
  events = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: events.append(name)
  )
  stats = {"mean": jnp.ones(1237), "var": jnp.ones(1237)}  # no other test has so many
  layers.unbiased_statistics(stats, 0.8, jnp.int32(3))
  compiled = [name for name in events if "compile" in name]
  assert compiled
  layers.unbiased_statistics(stats, 0.8, jnp.int32(4))
  assert [name for name in events if "compile" in name] == compiled


# Options that the report does not have


def normalised_matrix(module, variables):
  """The matrix by which a `SpectralConv` multiplies flattened patches."""
  patches = jnp.eye(3 * 3 * 5).reshape(45, 3, 3, 5)
  bias = variables["params"]["bias"]
  return module.apply(variables, patches).reshape(45, 7) - bias[None]


@pytest.fixture(scope="module")
def spectral():
  """A convolution with spectral normalisation and its variables after 100 updates."""
  module = layers.SpectralConv(7, 3, 1, "VALID")
  variables = random_variables(module, 1, 3, 3, 5)
  x = jnp.zeros((1, 3, 3, 5))
  update = jax.jit(
    lambda v: module.apply(v, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]
  )
  for _ in range(100):
    variables = {**variables, "batch_stats": update(variables)}
  return module, variables


def test_spectral_norm_equals_that_of_numpys_svd(spectral):
  module, variables = spectral
  kernel = np.asarray(variables["params"]["kernel"]).reshape(45, 7)
  expected = kernel / np.linalg.svd(kernel, compute_uv=False)[0]
  actual = normalised_matrix(module, variables)
  np.testing.assert_allclose(actual, expected, atol=1e-5)
  np.testing.assert_allclose(np.linalg.svd(actual, compute_uv=False)[0], 1, rtol=1e-5)


@pytest.mark.slow
def test_gradients_of_spectral_norms_equal_differences(spectral):
  module, variables = spectral
  rng = np.random.default_rng(0)
  weights, direction = rng.normal(size=(45, 7)), rng.normal(size=(45, 7))

  def energy(params):
    matrix = normalised_matrix(module, {**variables, "params": params})
    return jnp.sum(jnp.float32(weights) * matrix)

  slope = jax.grad(energy)(variables["params"])["kernel"].reshape(45, 7)
  kernel = np.asarray(variables["params"]["kernel"], np.float64).reshape(45, 7)
  there, back = (
    np.sum(weights * moved / np.linalg.svd(moved, compute_uv=False)[0])
    for moved in (kernel + 1e-6 * direction, kernel - 1e-6 * direction)
  )
  np.testing.assert_allclose(np.sum(slope * direction), (there - back) / 2e-6, 1e-3)
