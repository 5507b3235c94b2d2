"""Imports the weights of a Keras model into a work directory.

    ctx-encoder import-keras photos.keras --workdir runs/keras \\
        --config configs/photos_center.py

The model must be one of the report's networks, of the width and image size in the
configuration (--set changes its fields). Layer names do not matter; the matches are
printed. Files of Keras 3 (.keras, .weights.h5) and of Keras 1 and 2 (.h5) are read.
Nothing in them is run; Keras is not needed.

The work directory can be used like that of a training run. The weights count as those
of step 2000, so that BatchNorm's running statistics count as converged. Training
resumes from there with a new discriminator.
"""

import argparse
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp

from ctx_encoder import config as configuration
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.data.paths import printable
from ctx_encoder.models import Generator
from ctx_encoder.models.weights import keras, read
from ctx_encoder.training import assembly
from ctx_encoder.training.checkpoint import Checkpoints
from ctx_encoder.training.process import claimed
from ctx_encoder.training.state import TrainState

# By then the initial running statistics, of momentum 0.99, have a weight below 2^-24.
STEP = 2000


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("file", metavar="FILE", help=".keras, .weights.h5 or .h5")
  parser.add_argument(
    "--config",
    required=True,
    help="configuration file, for example configs/photos_center.py:quick",
  )
  parser.add_argument(
    "--set",
    nargs="+",
    default=[],
    metavar="FIELD=VALUE",
    help="fields to set, such as data.normalization=unit; see `ctx-encoder config`",
  )
  parser.add_argument("--workdir", required=True, help="folder to make")


def run(args: argparse.Namespace) -> int:
  """Makes the folder; returns 0."""
  print(f"Making a run with the weights of {printable(args.file)} ...", flush=True)
  matches = make(args)
  rows = [("layer of the file", "layer of the network", "shape of its kernel or scale")]
  rows += [(match.name, "/".join(match.path), str(match.shape)) for match in matches]
  wide, long = (max(len(row[column]) for row in rows) for column in (0, 1))
  for name, path, shape in rows:
    print(f"{printable(name):{wide}}  {path:{long}}  {shape}")
  print(
    f"Imported into {args.workdir}. Evaluate it:"
    f" ctx-encoder evaluate --workdir {args.workdir} --images FOLDER"
  )
  return 0


def make(args: argparse.Namespace) -> list[keras.Match]:
  """Writes the checkpoint; returns what was taken for what.

  Raises:
    ValueError: the configuration is wrong, the file is no such file, or its layers are
      not those of the network.
    OSError, ImportError: a file cannot be read, or the folder not written.
  """
  config = configuration.read(args.config)
  named = (configuration.parse(text) for text in args.set)
  configuration.override(config, {name: value for name, (value,) in named})
  configuration.validate(config)
  if config.masks.fill == "mean":
    raise ValueError(
      "masks.fill=mean needs the mean colour of the model's training data: give it as"
      " --set masks.fill=#rrggbb."
    )
  workdir = Path(args.workdir)
  checkpoints = Checkpoints(workdir / "checkpoints")
  if checkpoints.latest() is not None:
    raise FileExistsError(f"{workdir} holds a run already; name another --workdir.")
  arrays = read.load(args.file)
  run = assembly.run(config)

  def create() -> TrainState:
    optimizers = run.optimizers(run.generator, 1)
    return run.init(jax.random.key(config.seed), optimizers)

  shapes = jax.eval_shape(create)
  layers = keras.table(cast(Generator, run.generator), shapes.generator.params)
  variables, matches = keras.read(arrays, layers, shapes.generator.variables)
  state = jax.jit(create)()
  variables = jax.tree.map(jnp.asarray, variables)
  state = state.replace(
    step=jnp.asarray(STEP, jnp.int32),
    updates=jnp.asarray(STEP, jnp.int32),
    generator=state.generator.replace(**variables),
    average=None if state.average is None else variables["params"],
  )
  with claimed(workdir), checkpoints:
    checkpoints.save(
      STEP,
      state,
      config=configuration.to_dict(config),
      extra={"mean_color": list(assembly.GREY)},
    )
  return matches
