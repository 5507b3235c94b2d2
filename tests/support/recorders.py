"""Two networks that show what a training step gives them.

The generator's output is a parameter. Both keep their last inputs in their batch
statistics.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny

from ctx_encoder.training import assembly
from ctx_encoder.training.setup import Optimizers

BATCH = 4
SGD = optax.sgd(1.0)  # an update is the negative gradient
WEIGHTS = {"reconstruction": 0.9, "adversarial": 0.3}


class Canvas(nn.Module):
  """A generator whose output is its parameter, whatever its input."""

  side: int = tiny.SIZE
  remember: bool = True

  @nn.compact
  def __call__(self, x, *, train=False, keys=None):
    shape = (BATCH, self.side, self.side, 3)
    canvas = self.param("canvas", nn.initializers.normal(0.5), shape)
    if self.remember:
      inputs = self.variable("batch_stats", "inputs", jnp.zeros_like, x)
      drawn = self.variable("batch_stats", "keys", jax.random.key_data, keys)
      if train:
        inputs.value, drawn.value = x, jax.random.key_data(keys)
    return canvas[: len(x)]


class Critic(nn.Module):
  """A discriminator whose logit is a weighted mean of the pixels."""

  @nn.compact
  def __call__(self, x, *, train=False):
    weight = self.param("weight", nn.initializers.normal(3.0), x.shape[1:])
    shown = self.variable("batch_stats", "shown", lambda: jnp.zeros((2, *x.shape)))
    if train:
      last = jnp.broadcast_to(shown.value[1], x.shape)
      shown.value = jnp.stack([last, x])
    return jnp.mean(x * weight[None], axis=(1, 2, 3))


def with_rule(run, optimizer=SGD, **parts):
  """Returns a run with other parts, and one update rule for both networks."""
  return dataclasses.replace(
    run, optimizers=lambda generator, steps: Optimizers(optimizer, optimizer), **parts
  )


def make_run(*, optimizer=SGD, remember=True, **changes):
  """Returns a run of the two recorders; `changes` as for `tiny.config`."""
  weights = {f"loss_weights__{name}": weight for name, weight in WEIGHTS.items()}
  run = assembly.run(tiny.config(**(weights | changes)))
  generator = Canvas(run.view.output_size, remember)
  return with_rule(run, optimizer, generator=generator, discriminator=Critic())


def ready(**options):
  """Returns `tiny.ready` of `make_run`."""
  return tiny.ready(make_run(**options))


def inputs_of(state):
  """Returns the generator's input in the last step."""
  return np.asarray(state.generator.batch_stats["inputs"])


def assert_same(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def assert_close(tree, other, tolerance):
  def check(one, two):
    np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)

  jax.tree.map(check, tree, other)
