"""The state of training: arrays, and nothing else."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from ctx_encoder.models import Generator, PatchGAN

PyTree = Any


class NetworkState(struct.PyTreeNode):
  """One network: its parameters, running statistics and optimiser state."""

  params: PyTree
  batch_stats: PyTree
  opt_state: PyTree

  @property
  def variables(self) -> dict[str, PyTree]:
    return {"params": self.params, "batch_stats": self.batch_stats}


class TrainState(struct.PyTreeNode):
  """All that a step changes.

  step: int32 scalar, updates made.
  generator, discriminator: the two networks.
  average: moving average of the generator's parameters, or None.
  """

  step: jax.Array
  generator: NetworkState
  discriminator: NetworkState
  average: PyTree | None


def init_state(
  key: jax.Array,
  generator: Generator,
  discriminator: PatchGAN,
  generator_optimizer: optax.GradientTransformation,
  discriminator_optimizer: optax.GradientTransformation,
  *,
  image_size: int,
  channels: int = 3,
  judged_size: int | None = None,
  average: bool = False,
) -> TrainState:
  """Returns the state before the first step.

  Args:
    key: PRNG key of the weights.
    generator, discriminator: the networks.
    generator_optimizer, discriminator_optimizer: their update rules.
    image_size: side of the generator's input.
    channels: of the generator's input.
    judged_size: side of what the discriminator sees; `image_size` unless given.
    average: whether to keep a moving average of the generator.
  """
  generator_key, discriminator_key, example_key = jax.random.split(key, 3)
  inputs = jnp.zeros((1, image_size, image_size, channels))
  judged = jnp.zeros((1, judged_size or image_size, judged_size or image_size, 3))
  drawn = generator.init(generator_key, inputs, keys=example_key[None])
  judging = discriminator.init(discriminator_key, judged)
  generator_state = _network_state(drawn, generator_optimizer)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    generator=generator_state,
    discriminator=_network_state(judging, discriminator_optimizer),
    # A copy, since the step donates its input and no buffer can be donated twice.
    average=jax.tree.map(jnp.copy, generator_state.params) if average else None,
  )


def with_encoder(state: TrainState, params: PyTree) -> TrainState:
  """Returns a state whose generator, and its average, have an encoder's parameters.

  Args:
    state: before the first step.
    params: of the encoder, as in the state but perhaps in NumPy.
  """

  def replaced(whole: PyTree) -> PyTree:
    def put(old, new):
      return jax.device_put(jnp.array(new, old.dtype), old.sharding)

    return whole | {"encoder": jax.tree.map(put, whole["encoder"], params)}

  own = state.generator
  return state.replace(
    generator=own.replace(params=replaced(own.params)),
    average=None if state.average is None else replaced(state.average),
  )


def inference_variables(generator: Generator, state: TrainState) -> dict[str, PyTree]:
  """Returns the generator's variables to complete images with.

  The averaged parameters where there are any, and running statistics that have
  forgotten their start.
  """
  own = state.generator
  stats = generator.unbiased_statistics(own.batch_stats, state.step)
  return {"params": state.average or own.params, "batch_stats": stats}


def magnitudes(state: TrainState) -> dict[str, jax.Array]:
  """Returns the largest magnitude in each part of both networks, float32 scalars.

  One is not finite where any value of that part is not.
  """

  def largest(tree: PyTree) -> jax.Array:
    each = [jnp.max(jnp.abs(x)).astype(jnp.float32) for x in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack([jnp.zeros(()), *each]))

  return {
    f"{name}.{part}": largest(getattr(getattr(state, name), part))
    for name in ("generator", "discriminator")
    for part in ("params", "batch_stats", "opt_state")
  }


def _network_state(variables, optimizer) -> NetworkState:
  params = variables["params"]
  stats = variables.get("batch_stats", {})
  return NetworkState(params, stats, optimizer.init(params))
