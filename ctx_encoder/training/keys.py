"""PRNG keys of a step: one stream for each use, then one key for each example.

What one stream draws never changes what another draws, and an example's draws do not
depend on the devices that share its batch.
"""

import jax
import jax.numpy as jnp
from jax import lax

_STREAMS = {"masks": 0, "augment": 1, "dropout": 2, "evaluation": 3, "penalty": 4}
_STREAMS |= {"diff_augment": 5}


def stream(key: jax.Array, name: str) -> jax.Array:
  """Returns the key of a stream."""
  return jax.random.fold_in(key, _STREAMS[name])


def per_example(key: jax.Array, index: jax.Array) -> jax.Array:
  """Returns `[B]` keys, each a function of the key and the example's index."""
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def positions(batch_size: int, axis_name: str | None) -> jax.Array:
  """Returns the examples' positions in the global batch, int32 `[B]`.

  Args:
    batch_size: of this device's part.
    axis_name: the axis of `jax.pmap`, or None outside it.
  """
  own = jnp.arange(batch_size)
  if axis_name:
    own = own + lax.axis_index(axis_name) * batch_size
  return own
