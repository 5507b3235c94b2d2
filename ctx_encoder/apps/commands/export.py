"""Writes a trained generator to a file that runs without this package.

    ctx-encoder export --workdir runs/photos --format stablehlo --output photos.bin
    ctx-encoder export --workdir runs/photos --format savedmodel --output photos

The file takes any number of images and masks, uint8, and returns completed images,
uint8, whose known pixels are the ones that came in; how to call it is printed. A
stablehlo file needs jax alone, on CPU, CUDA or TPU; its description is beside it. A
savedmodel is a folder and needs TensorFlow alone. For weights in Keras's format see
`ctx-encoder export-keras`.
"""

import argparse
import sys
from pathlib import Path

from ctx_encoder.inpaint import export
from ctx_encoder.training import trained

FORMATS = ("stablehlo", "savedmodel")

_STABLEHLO = """
import jax, jax.export, numpy as np

with open({path!r}, "rb") as file:
  complete = jax.jit(jax.export.deserialize(bytearray(file.read())).call)
images = np.zeros((2, {size}, {size}, 3), np.uint8)
masks = np.zeros((2, {size}, {size}, 1), np.uint8)  # all but 0 is hole
completed = np.asarray(complete(images, masks))  # uint8, like images
"""

_SAVEDMODEL = """
import numpy as np, tensorflow as tf

model = tf.saved_model.load({path!r})
images = np.zeros((2, {size}, {size}, 3), np.uint8)
masks = np.zeros((2, {size}, {size}, 1), np.uint8)  # all but 0 is hole
completed = model.complete(images, masks).numpy()  # uint8, like images
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("--workdir", required=True, help="folder of a run")
  parser.add_argument("--format", required=True, choices=FORMATS)
  parser.add_argument(
    "--output",
    required=True,
    help="file (stablehlo) or folder (savedmodel); an older one is replaced",
  )
  parser.add_argument(
    "--step", type=int, help="of the checkpoint (default: the best, see `evaluate`)"
  )


def run(args: argparse.Namespace) -> int:
  """Writes the file; returns 0, or 1 where an argument does not serve."""
  output = Path(args.output)
  try:
    if args.format == "savedmodel":
      export.check_savedmodel(output)
    elif output.is_dir():
      raise IsADirectoryError(f"{output} is a folder; name a file with --output.")
    model = trained.load(args.workdir, step=args.step)
    if args.format == "savedmodel":
      export.write_savedmodel(model, output)
    else:
      export.write_stablehlo(model, output)
  except ModuleNotFoundError as error:
    problem = (
      f"{error}; a savedmodel needs TensorFlow: pip install 'ctx-encoder[train]'"
    )
    print(f"ctx-encoder export: {problem}", file=sys.stderr)
    return 1
  except (OSError, ValueError) as error:
    print(f"ctx-encoder export: {error}", file=sys.stderr)
    return 1
  print(f"Step {model.step} of {model.workdir} is in {output}. To run it:")
  print(snippet(args.format, str(output), model.view.image_size))
  return 0


def snippet(kind: str, path: str, size: int) -> str:
  """Returns Python code that loads an exported file and calls it."""
  template = _STABLEHLO if kind == "stablehlo" else _SAVEDMODEL
  return template.format(path=path, size=size)
