"""Writes a trained generator for use without this package.

    ctx-encoder export --workdir runs/photos --format stablehlo --output photos.bin
    ctx-encoder export --workdir runs/photos --format savedmodel --output photos

The exported function takes uint8 images and masks, any number of them, and returns the
completed images, uint8, with known pixels unchanged. Code that calls it is printed.
A stablehlo file needs only jax and flatbuffers, on CPU, CUDA or TPU; a description is
written beside it. A savedmodel is a folder and needs only TensorFlow. For Keras weights
use `ctx-encoder export-keras`.
"""

import argparse
from pathlib import Path

from ctx_encoder.inpaint import export
from ctx_encoder.training import trained

FORMATS = ("stablehlo", "savedmodel")

_STABLEHLO = """
import jax, jax.export, numpy as np

with open({path!r}, "rb") as file:
  complete = jax.jit(jax.export.deserialize(bytearray(file.read())).call)
images = np.zeros((2, {size}, {size}, 3), np.uint8)
masks = np.zeros((2, {size}, {size}, 1), np.uint8)  # nonzero = hole
completed = np.asarray(complete(images, masks))  # uint8, like images
"""

_SAVEDMODEL = """
import numpy as np, tensorflow as tf

model = tf.saved_model.load({path!r})
images = np.zeros((2, {size}, {size}, 3), np.uint8)
masks = np.zeros((2, {size}, {size}, 1), np.uint8)  # nonzero = hole
completed = model.complete(images, masks).numpy()  # uint8, like images
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("--workdir", required=True, help="folder of a run")
  parser.add_argument("--format", required=True, choices=FORMATS)
  parser.add_argument(
    "--output",
    required=True,
    help="file (stablehlo) or folder (savedmodel); an existing one is replaced",
  )
  parser.add_argument(
    "--step", type=int, help="checkpoint to export (default: the best of the run)"
  )


def run(args: argparse.Namespace) -> int:
  """Writes the file and prints code that calls it; returns 0."""
  output = Path(args.output)
  if args.format == "savedmodel":
    export.check_savedmodel(output)
  elif output.is_dir():
    raise IsADirectoryError(f"{output} is a folder; name a file with --output.")
  model = trained.load(args.workdir, step=args.step)
  if args.format == "savedmodel":
    export.write_savedmodel(model, output)
  else:
    export.write_stablehlo(model, output)
  print(f"Step {model.step} of {model.workdir} is in {output}. To run it:")
  print(snippet(args.format, str(output), model.config.data.image_size))
  return 0


def snippet(kind: str, path: str, size: int) -> str:
  """Returns Python code that loads an exported file and calls it."""
  template = _STABLEHLO if kind == "stablehlo" else _SAVEDMODEL
  return template.format(path=path, size=size)
