"""The generator's initial weights, where they are not random."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from ctx_encoder.models import weights
from ctx_encoder.models.weights import package
from ctx_encoder.training import trained
from ctx_encoder.training.setup import Run, init_generator
from ctx_encoder.training.state import PyTree


def params(run: Run) -> dict[str, PyTree]:
  """Returns {part of the generator: its initial parameters}; {} = random ones.

  Running statistics start anew in any case.

  Raises:
    ValueError: a weight file cannot be read, or is of another network.
    FileNotFoundError: there is no such file, or no checkpoint in the folder.
    OSError: a file cannot be opened.
  """
  source = run.config.init_from
  if not source:
    encoder = run.encoder_params()
    return {} if encoder is None else {"encoder": encoder}
  if source == package.NAME:
    return _checked(run, package.arrays(), source)
  if Path(source).suffix == ".safetensors":
    return _checked(run, weights.load(source), source)
  try:
    return trained.load(source, generator=run.generator).variables["params"]
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f"init_from={source} is neither '{package.NAME}', nor a .safetensors file, nor"
      " the folder of a run with a checkpoint."
    ) from error
  except ValueError as error:
    raise ValueError(f"init_from={source}: {error}") from error


def _checked(run: Run, arrays: dict[str, Any], source: str) -> dict[str, PyTree]:
  """Returns the arrays, by names as "stem/kernel", as a pytree of the generator."""
  key = jax.random.key(0)
  drawn = jax.eval_shape(lambda: init_generator(run.generator, run.view, key, key))
  wanted: dict[str, Any] = dict(traverse_util.flatten_dict(drawn["params"], sep="/"))
  for name in [*wanted, *arrays]:
    there, here = (
      f"{list(found[name].shape)}" if name in found else "absent"
      for found in (arrays, wanted)
    )
    if there != here:
      raise ValueError(
        f"init_from={source} has the weights of another network: {name} is {there}"
        f" there and {here} in this run's generator."
      )
  found = {name: np.asarray(arrays[name], x.dtype) for name, x in wanted.items()}
  return traverse_util.unflatten_dict(found, sep="/")
