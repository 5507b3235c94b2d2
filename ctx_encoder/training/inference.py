"""Completing images with a trained generator: one call from uint8 to uint8."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ctx_encoder import pixels, xla
from ctx_encoder.models import Generator, fold_batch_norm
from ctx_encoder.training.task import Task

Complete = Callable[..., jax.Array]


def make_complete(generator: Generator, variables: Any, task: Task) -> Complete:
  """Returns `complete(images, masks, keys=None)`, jitted.

  It takes uint8 images `[B, S, S, 3]` and masks `[B, S, S, 1]`, 1 = hole, of the task's
  size, and returns the completed images, uint8 `[B, S, S, 3]`: known pixels are the
  ones that came in. `keys` are `[B]` PRNG keys, for a bottleneck with noise. It is
  compiled anew for every batch size.

  Args:
    generator: the network.
    variables: see `state.inference_variables`; BatchNorm is folded away here.
    task: fill, normalisation and mask channel that the network was trained with.
  """
  folded, folded_variables = fold_batch_norm(generator, variables)

  def completed(variables, images, masks, keys):
    mask = masks.astype(jnp.float32)
    examples = task.see(pixels.from_uint8(images), mask)
    outputs = cast(
      jax.Array, folded.apply(variables, examples.inputs, train=False, keys=keys)
    )
    painted = pixels.to_uint8(task.completed(outputs, examples))
    return jnp.where(mask > 0, painted, images)

  compiled = jax.jit(completed, compiler_options=xla.options())

  def complete(images, masks, keys=None):
    # Inside another `jax.jit`, which has options of its own, it is compiled with that.
    traced = isinstance(images, Tracer) or isinstance(masks, Tracer)
    function = completed if traced else compiled
    return function(folded_variables, images, masks, keys)

  return complete
