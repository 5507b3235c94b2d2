"""Writes a trained generator's weights for Keras, and prints the model they are of.

    ctx-encoder export-keras --workdir runs/photos_block --output photos.weights.h5

Keras gets the report's two networks, 'photos' and 'monet', without skip connections;
for others use `ctx-encoder export`. The file is one that a Keras model of the report's
table loads by `load_weights`, whatever its layers are called: `.weights.h5` for Keras
3, `.h5` for Keras 1 and 2 too. The code that is printed makes such a model. It takes
masked images as the network sees them, and returns the network's output, not yet
pasted into the image.
"""

import argparse
from pathlib import Path

from ctx_encoder.apps import console
from ctx_encoder.models import Generator
from ctx_encoder.models.weights import keras as keras_weights
from ctx_encoder.training import trained

_INPUTS = {
  "symmetric": "x / 127.5 - 1",
  "unit": "x / 255",
  "minmax": "each image's known pixels scaled to [-1, 1]",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("--workdir", required=True, help="folder of a run")
  parser.add_argument(
    "--output", required=True, help=".weights.h5 or .h5; an older one is replaced"
  )
  parser.add_argument(
    "--step", type=int, help="of the checkpoint (default: the best, see `evaluate`)"
  )


def run(args: argparse.Namespace) -> int:
  """Writes the file; returns 0."""
  path = Path(args.output)
  if path.suffix != ".h5" or path.is_dir():
    raise ValueError(f"--output must be a file .weights.h5 or .h5, not {path}.")
  console.need("h5py")
  model = trained.load(args.workdir, step=args.step)
  layers = _layers(model)
  keras_weights.write(path, layers, model.variables)
  print(f"Step {model.step} of {model.workdir} is in {path}. A model that loads it:\n")
  view, config = model.view, model.config
  print(
    keras_weights.code(layers, (view.image_size,) * 2 + (view.channels,), str(path))
  )
  print(
    f"\n# Input: RGB as {_INPUTS[view.normalization]}, its holes filled with"
    f" {config.masks.fill}"
    + ("; the mask, 1 = hole, is a fourth channel" if view.mask_channel else "")
    + {
      "image": ".\n# Output: the image.",
      "patch": ".\n# Output: the centre half of the image.",
      "residual": ".\n# Output: what to add to the input.",
    }[view.predict]
  )
  return 0


def _layers(model: trained.Trained) -> list[keras_weights.Layer]:
  """Returns the Keras model's layers.

  Raises:
    ValueError: the network cannot be written for Keras; names what can.
  """
  problem = f"model.generator={model.config.model.generator}"
  if isinstance(model.generator, Generator):
    try:
      return keras_weights.table(model.generator, model.variables["params"])
    except ValueError as error:
      problem = str(error).removesuffix(".")
  raise ValueError(
    f"This network cannot be written for Keras: {problem}. Those of photos and monet"
    " without skip connections can; for this one use ctx-encoder export with --format"
    " savedmodel or onnx."
  )
