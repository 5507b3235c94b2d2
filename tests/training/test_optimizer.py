"""Update rules, and optimizers restricted to the slices that receive gradients."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recorders
import tiny

from ctx_encoder.models.ops import conv
from ctx_encoder.training import assembly
from ctx_encoder.training.optimizer import restrict

RULES = {
  "adam": optax.adam(1e-2, b1=0.5),
  "adamw": optax.adamw(1e-2, weight_decay=0.1),
  "rmsprop": optax.rmsprop(1e-2),
  "adadelta": optax.adadelta(1e-2),
}
SLICES = {("a", "kernel"): (slice(1, 3), slice(0, 2))}


def tree(seed):
  rng = np.random.default_rng(seed)
  return {
    "a": {"kernel": rng.normal(size=(4, 3, 2)), "bias": rng.normal(size=2)},
    "b": {"kernel": rng.normal(size=(2, 2))},
  }


@pytest.mark.parametrize("name", RULES)
def test_updates_equal_the_rule_within_the_slices_and_are_zero_outside(name):
  plain, restricted = RULES[name], restrict(RULES[name], SLICES)
  params = tree(0)
  state, restricted_state = plain.init(params), restricted.init(params)
  for seed in (1, 2, 3):
    complete, state = plain.update(tree(seed), state, params)
    part, restricted_state = restricted.update(tree(seed), restricted_state, params)
    kernel = np.zeros((4, 3, 2), np.float32)
    kernel[1:3, 0:2] = complete["a"]["kernel"][1:3, 0:2]
    complete["a"]["kernel"] = kernel
    jax.tree.map(np.testing.assert_array_equal, part, complete)
  sizes = {leaf.size for leaf in jax.tree.leaves(restricted_state) if leaf.ndim == 3}
  assert sizes == {2 * 2 * 2}


def test_without_slices_the_rule_is_returned():
  sgd = optax.sgd(1.0)
  assert restrict(sgd, {}) is sgd


def test_a_path_of_no_parameter_is_named():
  restricted = restrict(optax.sgd(1.0), {("a", "kernal"): (slice(0, 1),)})
  with pytest.raises(ValueError, match=r"no parameters \['kernal'\] among"):
    restricted.init(tree(0))


@pytest.mark.slow
def test_reached_taps_are_those_with_a_gradient():
  for kernel, stride, side in itertools.product((1, 2, 3, 4, 5, 11), (1, 2), (1, 2, 3)):

    def total(weights, side=side, stride=stride):
      x = jnp.ones((1, side, side, 1))
      return jnp.sum(conv.conv_transpose(x, weights, (stride, stride)))

    gradient = jax.grad(total)(jnp.ones((kernel, kernel, 1, 1)))[:, :, 0, 0]
    expected = np.zeros((kernel, kernel), bool)
    taps = conv.reached_taps(side, kernel, stride)
    expected[taps, taps] = True
    message = f"kernel {kernel}, stride {stride}, side {side}"
    np.testing.assert_array_equal(gradient != 0, expected, err_msg=message)


@pytest.mark.parametrize("generator", ["photos", "monet"])
@pytest.mark.parametrize("bottleneck", ["dense", "conv", "channelwise"])
def test_generators_name_their_restricted_kernels(generator, bottleneck):
  config = tiny.config(model__generator=generator, model__bottleneck=bottleneck)
  network: nn.Module = assembly.generator(config)
  first = ("decoder", "stage1", "conv", "kernel")
  expected = {first: (slice(1, 3),) * 2} if bottleneck == "conv" else {}
  assert network.trainable() == expected


def test_there_are_no_moments_of_weights_without_gradients():
  state = tiny.abstract_state(tiny.config(model__generator="monet")).generator
  kernel = state.params["decoder"]["stage1"]["conv"]["kernel"]
  moment = state.opt_state[0].mu["decoder"]["stage1"]["conv"]["kernel"]
  assert kernel.shape[:2] == (4, 4)
  assert moment.shape[:2] == (2, 2)


def updates(optimizer, gradients):
  """Returns the updates of successive gradients, `[steps, n]`."""
  params = jnp.zeros(gradients.shape[1])
  state, made = optimizer.init(params), []
  for gradient in gradients:
    change, state = optimizer.update(jnp.asarray(gradient), state, params)
    made.append(change)
  return np.array(made)


def rule(multiplier=1.0, total_steps=5, **changes):
  options = tiny.config(**changes).optimizer
  return assembly.update_rule(options, total_steps, multiplier)


def test_adam_has_the_reports_rates():
  gradients = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
  made = updates(rule(), gradients)
  first = second = np.zeros(8)
  for t, gradient in enumerate(np.float64(gradients), start=1):
    first = 0.5 * first + 0.5 * gradient
    second = 0.999 * second + 0.001 * gradient**2
    rate = first / (1 - 0.5**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(made[t - 1], -2e-4 * rate, rtol=1e-4)
  # The generator's multiplier does not change the discriminator's rule.
  fast = tiny.config(optimizer__generator_multiplier=10.0)
  both = assembly.optimizers(fast, tiny.generator(), 5)
  np.testing.assert_array_equal(updates(both.discriminator, gradients), made)
  np.testing.assert_allclose(updates(rule(10.0), gradients), 10 * made, rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_goes_downhill(name):
  gradients = np.random.default_rng(1).normal(size=(1, 8)).astype(np.float32)
  decay = {"optimizer__weight_decay": 0.1}
  (made,) = updates(rule(optimizer__name=name, **decay), gradients)
  np.testing.assert_array_equal(np.sign(made), -np.sign(gradients[0]))


def test_a_cosine_schedule_ends_at_zero():
  gradients = np.ones((9, 1), np.float32)
  made = updates(rule(total_steps=8, optimizer__schedule="cosine"), gradients)[:, 0]
  cosine = 2e-4 * (1 + np.cos(np.pi * np.arange(9) / 8)) / 2
  np.testing.assert_allclose(made, -cosine, rtol=1e-4, atol=1e-9)


def test_each_network_gets_its_own_learning_rate():
  config = tiny.config(optimizer__generator_multiplier=10.0)
  rules = assembly.run(config).optimizers
  run = dataclasses.replace(recorders.make_run(), optimizers=rules)
  *_, state, step = tiny.ready(run)
  after, _ = step(state, tiny.batch(), jax.random.key(7))
  # Adam's first step is as long as the learning rate wherever there is a gradient.
  lengths = []
  for name in ("discriminator", "generator"):
    pair = getattr(state, name).params, getattr(after, name).params
    change = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), *pair)
    lengths.append(max(jax.tree.leaves(change)))
  np.testing.assert_allclose(lengths, [2e-4, 2e-3], rtol=1e-2)


def test_clipping_and_the_discriminators_own_betas():
  config = tiny.config(
    optimizer__clip_norm=2.0, optimizer__discriminator_b1=0.25, optimizer__b2=0.9
  )
  both = assembly.optimizers(config, tiny.generator(), 5)
  long, short = np.float32([[30, 40], [0.3, 0.4]])
  for rule, b1 in ((both.generator, 0.5), (both.discriminator, 0.25)):
    params = jnp.zeros(2)
    if rule is both.generator:  # only slices of its kernels are trained
      rule = assembly.optimizers(config, nn.Dense(1), 5).generator
    _, state = rule.update(jnp.asarray(long), rule.init(params), params)
    moments = optax.tree.get(state, "mu"), optax.tree.get(state, "nu")
    np.testing.assert_allclose(moments[0], (1 - b1) * long / 25, rtol=1e-6)
    np.testing.assert_allclose(moments[1], 0.1 * (long / 25) ** 2, rtol=1e-5)
    _, state = rule.update(jnp.asarray(short), rule.init(params), params)
    np.testing.assert_allclose(optax.tree.get(state, "mu"), (1 - b1) * short, rtol=1e-6)
