"""Updating only what is read: the same training, with less to pass over."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ctx_encoder.models.ops import conv
from ctx_encoder.training import assembly as build
from ctx_encoder.training.optimizer import restrict

RULES = {
  "adam": optax.adam(1e-2, b1=0.5),
  "adamw": optax.adamw(1e-2, weight_decay=0.1),
  "rmsprop": optax.rmsprop(1e-2),
  "adadelta": optax.adadelta(1e-2),
}
REGIONS = {("a", "kernel"): (slice(1, 3), slice(0, 2))}


def tree(seed):
  rng = np.random.default_rng(seed)
  return {
    "a": {"kernel": rng.normal(size=(4, 3, 2)), "bias": rng.normal(size=2)},
    "b": {"kernel": rng.normal(size=(2, 2))},
  }


@pytest.mark.parametrize("name", RULES)
def test_updates_are_those_of_the_whole_rule_within_and_zero_outside(name):
  rule, restricted = RULES[name], restrict(RULES[name], REGIONS)
  params = tree(0)
  state, seen = rule.init(params), restricted.init(params)
  for seed in (1, 2, 3):
    whole, state = rule.update(tree(seed), state, params)
    part, seen = restricted.update(tree(seed), seen, params)
    kernel = np.zeros((4, 3, 2), np.float32)
    kernel[1:3, 0:2] = whole["a"]["kernel"][1:3, 0:2]
    whole["a"]["kernel"] = kernel
    jax.tree.map(np.testing.assert_array_equal, part, whole)
  sizes = {leaf.size for leaf in jax.tree.leaves(seen) if leaf.ndim == 3}
  assert sizes == {2 * 2 * 2}


def test_nothing_to_leave_out_is_the_rule_itself():
  rule = optax.sgd(1.0)
  assert restrict(rule, {}) is rule


def test_a_region_of_no_parameter_is_named():
  rule = restrict(optax.sgd(1.0), {("a", "kernal"): (slice(0, 1),)})
  with pytest.raises(ValueError, match=r"no parameters \['kernal'\] among"):
    rule.init(tree(0))


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 11])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_taps_that_are_read_are_those_with_a_gradient(kernel, stride, side):
  def total(weights):
    x = jnp.ones((1, side, side, 1))
    return jnp.sum(conv.conv_transpose(x, weights, (stride, stride)))

  gradient = jax.grad(total)(jnp.ones((kernel, kernel, 1, 1)))[:, :, 0, 0]
  expected = np.zeros((kernel, kernel), bool)
  taps = conv.reached_taps(side, kernel, stride)
  expected[taps, taps] = True
  np.testing.assert_array_equal(gradient != 0, expected)


@pytest.mark.parametrize("generator", ["photos", "monet"])
@pytest.mark.parametrize("bottleneck", ["dense", "conv", "channelwise"])
def test_a_generator_names_its_kernels(generator, bottleneck):
  config = tiny.config(model__generator=generator, model__bottleneck=bottleneck)
  network: nn.Module = build.generator(config)
  first = ("decoder", "stage1", "conv", "kernel")
  expected = {first: (slice(1, 3),) * 2} if bottleneck == "conv" else {}
  assert network.reached() == expected


def test_a_run_keeps_no_moments_of_weights_that_are_not_read():
  config = tiny.config(model__generator="monet")
  run = build.run(config, total_steps=1)
  state = jax.eval_shape(lambda: run.init(0, average=False)).generator
  kernel = state.params["decoder"]["stage1"]["conv"]["kernel"]
  moment = state.opt_state[0].mu["decoder"]["stage1"]["conv"]["kernel"]
  assert kernel.shape[:2] == (4, 4)
  assert moment.shape[:2] == (2, 2)
