"""Updates of convolutional networks with BatchNorm, against plain `jax.grad`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recorders
import tiny
from recorders import assert_close, assert_same

from ctx_encoder import losses
from ctx_encoder.training import assembly
from ctx_encoder.training.feed import make_dispatch
from ctx_encoder.training.state import inference_variables
from ctx_encoder.training.step import make_train_step

KEY = jax.random.key(7)
CHANGES = {
  "masks__kind": "random_block",
  "model__mask_channel": True,
  "loss_weights__reconstruction": 0.9,
  "loss_weights__adversarial": 0.3,
}


def make_run(**changes):
  """Returns a run of a generator with dropout and noise, both with BatchNorm."""
  return recorders.with_rule(
    assembly.run(tiny.config(**CHANGES, **changes)),
    generator=tiny.generator(noise_dim=2),
    discriminator=tiny.discriminator(),
  )


@pytest.fixture(scope="module")
def ready():
  return tiny.ready(make_run())


@pytest.fixture(scope="module")
def once(ready):
  """The state and the metrics after one step."""
  return ready.step(ready.state, tiny.batch(), KEY)


@pytest.fixture(scope="module")
def gradients(ready):
  """Returns jitted plain gradients of the two losses, each for its own network."""
  generator, discriminator = ready.run.generator, ready.run.discriminator
  *_, start, record = recorders.ready(**CHANGES)
  recorded = record(start, tiny.batch(), KEY)[0].generator.batch_stats
  inputs, keys = recorded["inputs"], jax.random.wrap_key_data(recorded["keys"])
  mask = inputs[..., 3:]
  targets = jnp.float32(tiny.batch()["image"]) / 127.5 - 1

  def complete(variables):
    outputs, _ = generator.apply(
      variables, inputs, train=True, keys=keys, mutable=["batch_stats"]
    )
    return outputs, (1 - mask) * targets + mask * outputs

  def discriminate(variables, images):
    return discriminator.apply(variables, images, train=True, mutable=["batch_stats"])

  def of_discriminator(params, stats, of_generator):
    completed = complete(of_generator)[1]
    real, changed = discriminate({"params": params, "batch_stats": stats}, targets)
    fake, changed = discriminate({"params": params, **changed}, completed)
    return jnp.mean(losses.bce_discriminator_loss(real, fake)), changed["batch_stats"]

  def of_generator(params, stats, of_discriminator):
    outputs, completed = complete({"params": params, "batch_stats": stats})
    squares = mask * jnp.square(outputs - targets)
    squares = jnp.sum(squares, (1, 2, 3)) / jnp.sum(mask, (1, 2, 3)) / 3
    logits, _ = discriminate(of_discriminator, completed)
    return jnp.mean(0.9 * squares + 0.3 * losses.bce_generator_loss(logits))

  return (
    jax.jit(jax.grad(of_discriminator, has_aux=True)),
    jax.jit(jax.grad(of_generator)),
  )


def difference(before, after):
  return jax.tree.map(jnp.subtract, before.params, after.params)


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
def test_updates_are_the_gradients(order, ready, once, gradients):
  of_discriminator, of_generator = gradients
  before, (after, _) = ready.state, once
  if order == "alternating":
    step = make_train_step(make_run(update_order=order), ready.optimizers)
    after, _ = jax.jit(step)(before, tiny.batch(), KEY)
  own, other = before.generator, before.discriminator
  wanted, stats = of_discriminator(other.params, other.batch_stats, own.variables)
  assert_close(difference(other, after.discriminator), wanted, 1e-5)
  assert_close(after.discriminator.batch_stats, stats, 1e-5)

  at_old = of_generator(own.params, own.batch_stats, other.variables)
  wanted = at_old
  if order == "alternating":  # with the new discriminator
    new = after.discriminator.variables
    wanted = of_generator(own.params, own.batch_stats, new)
    assert optax.tree.norm(jax.tree.map(jnp.subtract, wanted, at_old)) > 1e-4
  assert_close(difference(own, after.generator), wanted, 1e-5)
  assert optax.tree.norm(wanted) > 0.01


def test_the_same_step_twice_gives_the_same_bits(ready, once):
  assert_same(once, ready.step(ready.state, tiny.batch(), KEY))


@pytest.mark.slow
def test_two_halves_with_an_axis_name_equal_one_batch(ready, once):
  split = make_train_step(make_run(), ready.optimizers, axis_name="data")
  halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), tiny.batch())
  mapped = jax.jit(jax.vmap(split, in_axes=(None, 0, None), axis_name="data"))
  shards = mapped(ready.state, halves, KEY)
  for i in range(2):
    assert_close(jax.tree.map(lambda x, i=i: x[i], shards), once, 1e-5)


@pytest.mark.slow
def test_a_dispatch_of_several_steps_makes_those_steps(ready):
  images = tiny.batch(10)
  rows = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]])
  expected, measured = ready.state, []
  for chosen in rows:
    batch = {name: values[chosen] for name, values in images.items()}
    expected, metrics = ready.step(expected, batch, KEY)
    measured.append(metrics)
  step = make_train_step(ready.run, ready.optimizers)
  dispatch = jax.jit(make_dispatch(step), donate_argnums=0)
  given = jax.tree.map(jnp.copy, ready.state)
  after, metrics = dispatch(given, images["image"], images["index"], rows, KEY)
  assert_close(after, expected, 1e-5)
  assert_close(metrics, jax.tree.map(lambda *x: np.stack(x), *measured), 1e-5)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))


def test_inference_uses_averaged_parameters_and_unbiased_statistics(ready, once):
  generator, (after, _) = ready.run.generator, once
  plain = inference_variables(generator, after)
  assert_same(plain["params"], after.generator.params)
  average = ready.state.generator.params
  averaged = inference_variables(generator, after.replace(average=average))
  assert_same(averaged["params"], average)
  assert_same(averaged["batch_stats"], plain["batch_stats"])
  # One update of momentum 0.8 has moved the mean a fifth of the way from 0.
  moved = after.generator.batch_stats["decoder"]["stage1"]["norm"]["mean"]
  unbiased = plain["batch_stats"]["decoder"]["stage1"]["norm"]["mean"]
  assert_close(unbiased, 5 * moved, 1e-5)
