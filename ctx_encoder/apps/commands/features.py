"""Writes the features of images from a layer of a trained encoder.

    ctx-encoder features --workdir runs/photos_block --images FOLDER --output all.npz
    ctx-encoder features --workdir runs/photos_block --images FOLDER \\
        --output third.npz --layer stage3 --pool mean

Layers are those of the encoder, then the bottleneck: stage1 to stage5 of 'Photos' at
128x128, stage1 to stage6 of 'Monet', one more or less at twice or half the size; relu1
to pool5 of an AlexNet or relu1_1 to pool5 of a VGG; bottleneck. The error for a wrong
name lists the layers of the run and the sizes of their maps.

The file has `features` (float32 `[N, D]`), `names` (`[N]`, sorted), `layer`, `pool`,
`run` and `step`; numpy.load reads it. Images have no holes. Those that cannot be
decoded are left out and counted.
"""

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ctx_encoder import data
from ctx_encoder.apps import runs
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.apps.commands import evaluate
from ctx_encoder.apps.probe import features
from ctx_encoder.data import files
from ctx_encoder.training import trained


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  add_source_arguments(parser)
  parser.add_argument("--output", required=True, help="the .npz to write")
  parser.add_argument(
    "--layer",
    default=features.BOTTLENECK,
    help="stage1, stage2, ... or bottleneck, see above",
  )


def add_source_arguments(parser: Parser) -> None:
  """Adds the arguments that name a run, images and the pooling of maps."""
  parser.add_argument("--workdir", required=True, help="folder of a run")
  evaluate.add_image_arguments(parser, required=True)
  parser.add_argument(
    "--pool",
    choices=features.POOLS,
    default="grid",
    help="what becomes of a layer's map: none keeps it, mean and max pool over all"
    " positions, grid takes means over the most cells that leave at most"
    f" {features.MOST_FEATURES} features",
  )
  parser.number("--batch-size", 32, "images a call", 1)


def run(args: argparse.Namespace) -> int:
  """Writes the features in one move.

  Raises:
    FileNotFoundError: there is no such run, or no such images.
    ValueError: there is no such layer, or no image can be decoded.
  """
  path = Path(args.output)
  if path.suffix != ".npz" or path.is_dir():
    raise ValueError(f"--output must name a .npz, not {args.output}.")
  model, loaded = load(args, cache="none", check=[args.layer])
  extract = features.make_extract(model.generator, model.view, args.layer, args.pool)
  with runs.progress_bar(len(loaded.train), args.layer) as bar:
    found, names = features.of_examples(
      functools.partial(extract, model.variables),
      loaded.train,
      batch_size=args.batch_size,
      progress=bar.update,
    )
  arrays = {
    "features": found,
    "names": np.array(names),
    "layer": args.layer,
    "pool": args.pool,
    "run": model.name,
    "step": model.step,
  }
  files.write(path, lambda new: np.savez(new, **arrays))
  runs.report_skipped(loaded)
  count, size = found.shape
  print(
    f"{count} images, {size} features each of {args.layer}, of {model.name} at step"
    f" {model.step}: {path}"
  )
  return 0


def load(
  args: argparse.Namespace, *, cache: str, check: Sequence[str]
) -> tuple[trained.Trained, data.Data]:
  """Returns the run and its images, all of them in `train`.

  Raises:
    ValueError: the run has no such layer, found before the images are read.
    FileNotFoundError: there is no such run, or no such images.
  """
  model = trained.load(args.workdir)
  for layer in check:
    features.check_layer(model.generator, model.view, layer)
  return model, runs.load(
    model,
    evaluate.images_of(args),
    max_images=args.max_images,
    cache=cache,
    loader="pillow",  # images are decoded once, and TensorFlow takes seconds to load
  )
