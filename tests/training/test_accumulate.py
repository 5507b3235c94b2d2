"""Batches in parts, skipped steps, and the number of updates of running statistics."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recorders
import tiny
from recorders import SGD, assert_close, assert_same

from ctx_encoder.models import Settings, layers
from ctx_encoder.training import assembly
from ctx_encoder.training.state import inference_variables, magnitudes
from ctx_encoder.training.step import make_train_step, skip_nonfinite

KEY = jax.random.key(7)


class Plain(nn.Module):
  """A generator or discriminator that works pixel by pixel, without BatchNorm."""

  features: int

  @nn.compact
  def __call__(self, x, *, train=False, keys=None, features=False):
    hidden = nn.tanh(nn.Dense(5)(x))
    if keys is not None and train:
      noise = jax.vmap(lambda key: jax.random.normal(key, (5,)))(keys)
      hidden = hidden + noise[:, None, None]
    calls = self.variable("batch_stats", "calls", jnp.zeros, ())
    if train:
      calls.value += 1.0
    return nn.Dense(self.features)(hidden)


def plain(accumulate):
  config = tiny.config(
    masks__kind="random_block",
    loss_weights__reconstruction=0.9,
    loss_weights__adversarial=0.3,
    adversarial__r1=0.1,
    log__grad_norms=True,
    accumulate=accumulate,
  )
  run = assembly.run(config)
  parts = {"generator": Plain(3), "discriminator": Plain(1)}
  return tiny.ready(recorders.with_rule(run, SGD, **parts))


def test_parts_give_the_gradients_of_the_complete_batch():
  batch = tiny.batch(4)
  *_, state, step = plain(1)
  complete, measured = step(state, batch, KEY)
  assert float(measured["loss/r1"]) > 0
  for parts in (2, 4):
    found, measured_in_parts = plain(parts).step(state, batch, KEY)
    for name in ("generator", "discriminator"):
      one, other = getattr(complete, name), getattr(found, name)
      assert_close(other.params, one.params, 1e-5)
      before = getattr(state, name).params
      moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one.params, before)
      assert max(jax.tree.leaves(moved)) > 1e-4
    assert_close(measured_in_parts, measured, 1e-5)
    # The running statistics are updated by one part after the other.
    assert found.generator.batch_stats["calls"] == parts
    assert found.discriminator.batch_stats["calls"] == 2 * parts  # real and fake
    assert found.updates == parts
    assert found.step == 1


def test_accelerators_add_up_the_parts_in_a_loop():
  """XLA's CPU backend runs loops on one thread, so there the loop is unrolled."""
  changes = {"batch_size": 8, "accumulate": 4, "loss_weights__adversarial": 0.0}
  run = assembly.run(tiny.config(**changes))
  run = recorders.with_rule(run, SGD, generator=Normalized())
  optimizers = run.optimizers(run.generator, 1)
  state = jax.eval_shape(lambda: run.init(KEY, optimizers))
  traced = jax.jit(make_train_step(run, optimizers)).trace(state, tiny.batch(8), KEY)
  loops = {
    platform: traced.lower(lowering_platforms=(platform,)).as_text().count(".while")
    for platform in ("cpu", "cuda")
  }
  assert loops["cuda"] > loops["cpu"], loops


def test_parts_that_are_impossible():
  with pytest.raises(ValueError, match="needs update_order=simultaneous"):
    recorders.ready(accumulate=2, update_order="alternating")
  *_, state, step = recorders.ready(accumulate=3, remember=False)
  with pytest.raises(ValueError, match=r"batch of 4 cannot .* 3 equal parts"):
    step(state, tiny.batch(), KEY)


class Normalized(nn.Module):
  """BatchNorm of the input, then one dense layer."""

  scale: float = 1.0

  @nn.compact
  def __call__(self, x, *, train=False, keys=None):
    x = layers.batch_norm(Settings(), 0.8, train, name="norm")(self.scale * x)
    return nn.tanh(nn.Dense(3)(x))

  @nn.nowrap
  def unbiased_statistics(self, batch_stats, updates):
    return layers.unbiased_statistics(batch_stats, {"norm": 0.8}, updates)


def recursion(parts, momentum=0.8):
  """Running mean and variance of successive batches, without their start, float64."""
  mean, variance, weight = 0.0, 0.0, 0.0
  for x in parts:
    x = x.reshape(-1, x.shape[-1])
    mean = momentum * mean + (1 - momentum) * x.mean(0)
    variance = momentum * variance + (1 - momentum) * x.var(0)
    weight = momentum * weight + (1 - momentum)
  return {"mean": mean / weight, "var": variance / weight}


def normalized(optimizer=SGD, scale=1.0, **changes):
  """Returns `tiny.ready` of a run without an adversarial loss."""
  run = assembly.run(tiny.config(loss_weights__adversarial=0.0, **changes))
  generator = Normalized(scale)
  return tiny.ready(recorders.with_rule(run, optimizer, generator=generator))


def parts_of(batch, parts):
  """Returns the generator's inputs in each part: every `parts`-th example."""
  images = np.float64(batch["image"]) / 127.5 - 1
  images[:, 4:12, 4:12] = -1  # the black hole
  return [images[start::parts] for start in range(parts)]


@pytest.mark.parametrize("parts", [1, 4])
def test_running_statistics_are_exact_after_a_few_steps(parts):
  run, _, state, step = normalized(batch_size=8, accumulate=parts)
  history = []
  for number in range(3):
    batch = tiny.batch(8, seed=number)
    state, _ = step(state, batch, KEY)
    history += parts_of(batch, parts)
    found = inference_variables(run.generator, state)["batch_stats"]["norm"]
    assert_close(dict(found), recursion(history), 1e-5)
  assert (int(state.step), int(state.updates)) == (3, 3 * parts)
  # Corrected for one update a step instead of four, the mean would be far off.
  if parts > 1:
    wrong = run.generator.unbiased_statistics(state.generator.batch_stats, state.step)
    assert np.abs(wrong["norm"]["mean"] / found["mean"] - 1).max() > 0.5


def explode(step, *numbers):
  """Returns a step whose loss is NaN at the given step numbers, from 1 on."""

  def exploding(state, batch, key):
    after, measured = step(state, batch, key)
    bad = jnp.isin(after.step, jnp.array(numbers))
    loss = jnp.where(bad, jnp.nan, measured["loss/total"])
    return after, measured | {"loss/total": loss}

  return skip_nonfinite(exploding)


def test_skipped_steps_are_no_updates():
  run, optimizers, state, _ = normalized(batch_size=8, accumulate=4)
  step = jax.jit(explode(make_train_step(run, optimizers), 2))
  history = []
  for number in range(3):
    batch = tiny.batch(8, seed=number)
    state, measured = step(state, batch, KEY)
    assert measured["skipped"] == (number == 1)
    if number != 1:
      history += parts_of(batch, 4)
  found = inference_variables(run.generator, state)["batch_stats"]["norm"]
  assert_close(dict(found), recursion(history), 1e-5)
  assert (int(state.step), int(state.updates)) == (3, 8)


@pytest.mark.slow
def test_a_skipped_step_changes_only_the_step_number():
  changes = {"ema_decay": 0.5, "on_nonfinite": "skip"}
  run, optimizers, state, step = normalized(**changes)
  after, measured = step(state, tiny.batch(), KEY)
  assert measured["skipped"] == 0
  plain = normalized(ema_decay=0.5).step(state, tiny.batch(), KEY)[0]
  assert_close(plain, after, 1e-6)
  skip = jax.jit(explode(make_train_step(run, optimizers), 1))
  skipped, measured = skip(state, tiny.batch(), KEY)
  assert measured["skipped"] == 1
  assert skipped.step == 1
  assert_same(skipped.replace(step=state.step), state)


@pytest.mark.slow
def test_infinite_moments_and_statistics_are_skipped():
  """The loss and the parameters stay finite where the square of a value overflows."""
  skip = {"on_nonfinite": "skip"}
  cases = {
    "opt_state": normalized(
      optimizer=optax.adam(1e-3), loss_weights__reconstruction=1e25, **skip
    ),
    "batch_stats": normalized(scale=1e18, **skip),
  }
  for part, (run, optimizers, state, step) in cases.items():
    stopping = dataclasses.replace(run, config=tiny.config())
    unguarded = jax.jit(make_train_step(stopping, optimizers))
    after, measured = unguarded(state, tiny.batch(), KEY)
    bad = {name for name, x in magnitudes(after).items() if not np.isfinite(x)}
    assert bad == {f"generator.{part}"}
    assert all(np.isfinite(x) for x in measured.values())

    after, measured = step(state, tiny.batch(), KEY)
    assert measured["skipped"] == 1
    assert_same(after.replace(step=state.step), state)
