"""Writes a trained generator for use without this package.

    ctx-encoder export --workdir runs/photos --format stablehlo --output photos.bin
    ctx-encoder export --workdir runs/photos --format savedmodel --output photos
    ctx-encoder export --format onnx --output landscape.onnx --image-size 256

The exported function takes uint8 images and masks, any number of them, and returns the
completed images, uint8, with known pixels unchanged. Code that calls it is printed.
Without --workdir it is the package's own network.

A stablehlo file needs only jax and flatbuffers, on CPU, CUDA or TPU. An onnx file,
opset 18, needs only a runtime such as onnxruntime; to write it, install the extra onnx.
A savedmodel is a folder and needs only TensorFlow. A description is written with each.
For Keras weights use `ctx-encoder export-keras`.
"""

import argparse
from pathlib import Path

from ctx_encoder.apps import console
from ctx_encoder.inpaint import export, shipped
from ctx_encoder.training import trained

FORMATS = ("stablehlo", "savedmodel", "onnx")

_STABLEHLO = """
import jax, jax.export, numpy as np

with open({path!r}, "rb") as file:
  complete = jax.jit(jax.export.deserialize(bytearray(file.read())).call)
images = np.zeros((2, {size}, {size}, 3), np.uint8)
masks = np.zeros((2, {size}, {size}, 1), np.uint8)  # nonzero = hole
completed = np.asarray(complete(images, masks))  # uint8, like images
"""

_ONNX = """
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession({path!r})
images = np.zeros((2, {size}, {size}, 3), np.uint8)
masks = np.zeros((2, {size}, {size}, 1), np.uint8)  # nonzero = hole
completed = session.run(None, {{"images": images, "masks": masks}})[0]  # uint8
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
  parser.add_argument(
    "--workdir",
    help="folder of a run (default: the package's own network, trained on landscapes)",
  )
  parser.add_argument("--format", required=True, choices=FORMATS)
  parser.add_argument(
    "--output",
    required=True,
    help="file (stablehlo, onnx) or folder (savedmodel); an existing one is replaced",
  )
  parser.add_argument(
    "--image-size",
    type=int,
    help="side of the package's network, a multiple of 8 (default: 128)",
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
  if library := {"onnx": "onnx", "savedmodel": "tensorflow"}.get(args.format):
    console.need(library)
  model = _model(args)
  write = {
    "stablehlo": export.write_stablehlo,
    "savedmodel": export.write_savedmodel,
    "onnx": export.write_onnx,
  }[args.format]
  write(model, output)
  source = f"Step {model.step} of {model.workdir}" if args.workdir else model.name
  print(f"{source} is in {output}. To run it:")
  print(snippet(args.format, str(output), model.view.image_size))
  return 0


def _model(args: argparse.Namespace) -> trained.Trained:
  if args.workdir:
    if args.image_size is not None:
      raise ValueError("--image-size is for the package's network, without --workdir.")
    return trained.load(args.workdir, step=args.step)
  if args.step is not None:
    raise ValueError("--step names a checkpoint of a run: it needs --workdir.")
  size = shipped.SIDE if args.image_size is None else args.image_size
  if size < 8 or size % 8:
    raise ValueError(f"--image-size must be a multiple of 8, not {size}.")
  return shipped.model(size)


def snippet(kind: str, path: str, size: int) -> str:
  """Returns Python code that loads an exported file and calls it."""
  templates = {"stablehlo": _STABLEHLO, "savedmodel": _SAVEDMODEL, "onnx": _ONNX}
  return templates[kind].format(path=path, size=size)
