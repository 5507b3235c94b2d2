"""Inference: completes uint8 images with a trained generator."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ctx_encoder import pixels, xla
from ctx_encoder.models import Generator, fold_batch_norm, precision
from ctx_encoder.training.task import View

Complete = Callable[..., jax.Array]


def make_complete(generator: Any, variables: Any, view: View) -> Complete:
  """Returns `complete(images, masks, keys=None)`, jitted.

  It takes uint8 images `[B, S, S, 3]` and masks `[B, S, S, 1]`, 1 = hole, of the view's
  size, and returns the completed images, uint8 `[B, S, S, 3]`, whose known pixels are
  unchanged. `keys` are `[B]` PRNG keys, for a bottleneck with noise. Each batch size is
  compiled once.

  Args:
    generator: the network. BatchNorm of this package's generators is folded into the
      layers before it.
    variables: see `state.inference_variables`.
    view: input and output of the network.
  """
  folded, folded_variables = generator, variables
  if isinstance(generator, Generator):
    folded, folded_variables = fold_batch_norm(generator, variables)

  def outputs_of(network):
    return lambda variables, x, keys: cast(
      jax.Array, network.apply(variables, x, train=False, keys=keys)
    )

  apply = precision.on_cpus(outputs_of, folded, precision.in_float32(folded))

  def completed(variables, images, masks, keys):
    mask = masks.astype(jnp.float32)
    examples = view.examples(pixels.from_uint8(images), mask)
    outputs = apply(variables, examples.inputs, keys)
    painted = pixels.to_uint8(view.completed(outputs, examples))
    return jnp.where(mask > 0, painted, images)

  compiled = jax.jit(completed, compiler_options=xla.options())

  def complete(images, masks, keys=None):
    # Under another `jax.jit`, whose compiler options count.
    traced = isinstance(images, Tracer) or isinstance(masks, Tracer)
    function = completed if traced else compiled
    return function(folded_variables, images, masks, keys)

  return complete
