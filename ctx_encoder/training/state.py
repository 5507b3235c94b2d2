"""The state of training: a pytree of arrays."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

PyTree = Any


class NetworkState(struct.PyTreeNode):
  """One network: its parameters, running statistics and optimizer state."""

  params: PyTree
  batch_stats: PyTree
  opt_state: PyTree

  @property
  def variables(self) -> dict[str, PyTree]:
    return {"params": self.params, "batch_stats": self.batch_stats}


class TrainState(struct.PyTreeNode):
  """Everything that a step changes.

  step: int32 scalar, steps made.
  updates: int32 scalar, updates of the generator's running statistics: `accumulate` a
    step, none in a step that was skipped.
  generator, discriminator: the two networks.
  average: moving average of the generator's parameters, or None.
  """

  step: jax.Array
  updates: jax.Array
  generator: NetworkState
  discriminator: Any  # a NetworkState, which inference does without
  average: PyTree | None


def with_params(state: TrainState, params: dict[str, PyTree]) -> TrainState:
  """Returns a state whose generator, and its average, have the given parameters.

  Args:
    state: before the first step.
    params: of parts of the generator, by name, of the state's structure; NumPy or JAX
      arrays.
  """

  def replaced(generator: PyTree) -> PyTree:
    def put(old, new):
      return jax.device_put(jnp.array(new, old.dtype), old.sharding)

    own = {name: generator[name] for name in params}
    return generator | jax.tree.map(put, own, params)

  own = state.generator
  return state.replace(
    generator=own.replace(params=replaced(own.params)),
    average=None if state.average is None else replaced(state.average),
  )


def inference_variables(generator: Any, state: TrainState) -> dict[str, PyTree]:
  """Returns the generator's variables for inference.

  They are the averaged parameters where there are any, and running statistics that are
  bias-corrected where the generator has `unbiased_statistics(batch_stats, updates)`.
  """
  own, stats = state.generator, state.generator.batch_stats
  if hasattr(generator, "unbiased_statistics"):
    stats = generator.unbiased_statistics(stats, state.updates)
  return {"params": state.average or own.params, "batch_stats": stats}


def magnitudes(state: TrainState) -> dict[str, jax.Array]:
  """Returns the largest magnitude in each part of both networks, float32 scalars.

  It is not finite where any value of that part is not.
  """

  def largest(tree: PyTree) -> jax.Array:
    each = [jnp.max(jnp.abs(x)).astype(jnp.float32) for x in jax.tree.leaves(tree)]
    return jnp.max(jnp.stack([jnp.zeros(()), *each]))

  return {
    f"{name}.{part}": largest(getattr(getattr(state, name), part))
    for name in ("generator", "discriminator")
    for part in ("params", "batch_stats", "opt_state")
  }
