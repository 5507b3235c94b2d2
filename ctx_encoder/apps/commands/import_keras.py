"""Makes a work directory of the weights of a Keras model.

    ctx-encoder import-keras photos.keras --workdir runs/keras \\
        --config configs/photos_center.py

The model has to be one of the report's tables, of the width and image size that the
configuration says (--set changes its fields); what its layers are called does not
matter, and what was taken for what is printed. Files are those of Keras 3 (.keras,
.weights.h5) and of Keras 1 and 2 (.h5). Nothing in them is run; Keras is not needed.

The work directory serves as one of a run does. Training goes on in it from step 2000,
which is what the weights count as, so that BatchNorm's running statistics count as
settled; the discriminator is new.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp

from ctx_encoder.config import overrides as config_file
from ctx_encoder.config import schema as configuration
from ctx_encoder.models.weights import keras as keras_weights
from ctx_encoder.models.weights import read as weights
from ctx_encoder.training import assembly as build
from ctx_encoder.training.checkpoint import Checkpoints
from ctx_encoder.training.process import claimed
from ctx_encoder.training.state import TrainState

# Of running statistics of momentum 0.99 less than 2^-24 of the start is left by then.
STEP = 2000


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("file", metavar="FILE", help=".keras, .weights.h5 or .h5")
  parser.add_argument(
    "--config", required=True, help="configuration file, perhaps with :quick behind it"
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
  matches = make(args)
  names = [match.name for match in matches]
  paths = ["/".join(match.path) for match in matches]
  wide, long = max(map(len, names)), max(map(len, paths))
  for name, path, match in zip(names, paths, matches, strict=True):
    print(f"{name:{wide}}  {path:{long}}  {match.shape}")
  print(
    f"All of it is in {args.workdir}. Judge it:"
    f" ctx-encoder evaluate --workdir {args.workdir} --images FOLDER"
  )
  return 0


def make(args: argparse.Namespace) -> list[keras_weights.Match]:
  """Writes the checkpoint; returns what was taken for what.

  Raises:
    ValueError: the configuration is wrong, the file is no such file, or its layers are
      not those of the network.
    OSError, ImportError: a file cannot be read, or the folder not written.
  """
  config = config_file.read(args.config)
  for text in args.set:
    name, (value,) = config_file.parse(text)
    config_file.set_field(config, name, value)
  configuration.validate(config)
  if config.masks.fill == "mean":
    raise ValueError(
      "masks.fill=mean is the mean colour of data that is not here: give the colour"
      " that the model was trained with, --set masks.fill=#rrggbb."
    )
  workdir = Path(args.workdir)
  checkpoints = Checkpoints(workdir / "checkpoints")
  if checkpoints.latest() is not None:
    raise FileExistsError(f"{workdir} holds a run already; name another --workdir.")
  arrays = weights.load(args.file)
  # The sampler is not used here, and one of silhouettes would need their files.
  saved = json.loads(config.to_json_best_effort())
  config.masks.kind = "center"
  config.loss_weights.style = 0.0
  run = build.run(config, total_steps=1)

  def create() -> TrainState:
    return run.init(config.seed, average=config.ema_decay > 0)

  shapes = jax.eval_shape(create)
  layers = keras_weights.table(run.generator, shapes.generator.params)
  variables, matches = keras_weights.read(arrays, layers, shapes.generator.variables)
  state = jax.jit(create)()
  variables = jax.tree.map(jnp.asarray, variables)
  state = state.replace(
    step=jnp.asarray(STEP, jnp.int32),
    generator=state.generator.replace(**variables),
    average=None if state.average is None else variables["params"],
  )
  with claimed(workdir), checkpoints:
    checkpoints.save(STEP, state, config=saved, extra={"mean_color": [127.5] * 3})
  return matches
