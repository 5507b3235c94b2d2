"""Writes what the encoder of a trained generator makes of whole pictures.

    ctx-encoder features --workdir runs/photos_block --images FOLDER --output all.npz
    ctx-encoder features --workdir runs/photos_block --images FOLDER \\
        --output third.npz --layer stage3 --pool mean

The layers are the encoder's, and after them the bottleneck: stage1 to stage5 of
'Photos' at 128x128, stage1 to stage6 of 'Monet', a stage more or less at twice or half
the size; relu1 to pool5 of an AlexNet or relu1_1 to pool5 of a VGG; bottleneck. A wrong
name is answered with those that the run has, and the sizes of their maps.

The file has `features` (float32 `[N, D]`), `names` (`[N]`, sorted), `layer`, `pool`,
`run` and `step`; numpy.load reads it. No hole is made. Pictures that cannot be decoded
are left out and counted.
"""

import argparse
import functools
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ctx_encoder import data
from ctx_encoder.apps.probe import features
from ctx_encoder.data import files
from ctx_encoder.training import trained


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  add_source_arguments(parser)
  parser.add_argument("--output", required=True, help="the .npz to write")
  parser.add_argument(
    "--layer",
    default=features.BOTTLENECK,
    help="stage1, stage2, ... or bottleneck, see above (default: bottleneck)",
  )


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments that name a run, pictures and the pooling of maps."""
  parser.add_argument("--workdir", required=True, help="folder of a run")
  parser.add_argument(
    "--images",
    required=True,
    help="folder of images, of TFRecords, or name of a TFDS data set",
  )
  parser.add_argument(
    "--split", default="train", help="TFDS only: its split (default: train)"
  )
  parser.add_argument(
    "--data-dir",
    default="",
    help="TFDS only: where its data sets are kept (default: ~/tensorflow_datasets)",
  )
  parser.add_argument(
    "--max-images", type=int, default=0, help="at most this many (default: all)"
  )
  parser.add_argument(
    "--pool",
    choices=features.POOLS,
    default="grid",
    help="what becomes of a layer's map: none takes it whole, mean and max are over all"
    " places, grid takes means over as many cells as leave"
    f" {features.MOST_FEATURES} features at most (default: grid)",
  )
  parser.add_argument(
    "--batch-size", type=int, default=32, help="images a call (default: 32)"
  )


def run(args: argparse.Namespace) -> int:
  """Writes the file; returns 0, or 1 where an argument does not serve."""
  try:
    write(args)
  except (OSError, ValueError, ImportError) as error:
    print(f"ctx-encoder features: {error}", file=sys.stderr)
    return 1
  return 0


def write(args: argparse.Namespace) -> None:
  """Computes the features and writes them in one move.

  Raises:
    FileNotFoundError: there is no such run, or no such images.
    ValueError: there is no such layer, or no image can be decoded.
  """
  path = Path(args.output)
  if path.suffix != ".npz" or path.is_dir():
    raise ValueError(f"--output must name a .npz, not {args.output}.")
  path.parent.mkdir(parents=True, exist_ok=True)
  model = load_run(args)
  extract = features.make_extract(model.generator, model.task, args.layer, args.pool)
  loaded = load_images(args, model, cache="none")
  with tqdm(total=len(loaded.train), unit="img", mininterval=1, leave=False) as bar:
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
  report_skipped(loaded)
  count, size = found.shape
  print(
    f"{count} images, {size} features each of {args.layer}, of {model.name} at step"
    f" {model.step}: {path}"
  )


def load_run(args: argparse.Namespace) -> trained.Trained:
  """Returns the run's generator; raises before that if --batch-size is wrong."""
  if args.batch_size < 1:
    raise ValueError(f"--batch-size must be at least 1, not {args.batch_size}.")
  return trained.load(args.workdir)


def load_images(
  args: argparse.Namespace, model: trained.Trained, *, cache: str
) -> data.Data:
  """Returns the pictures as the run would read them, all of them in `train`."""
  settings, _ = data.evaluation_settings(
    model.config.data,
    args.images,
    data_dir=args.data_dir,
    max_images=args.max_images,
    cache=cache,
    loader="pillow",  # decoded once, and TensorFlow loads for seconds
  )
  settings.split = args.split  # of a TFDS data set; other sources ignore it
  return data.load(settings, everything=True)


def report_skipped(loaded: data.Data) -> None:
  if line := loaded.summary.skipped_line():
    print(line, file=sys.stderr)
