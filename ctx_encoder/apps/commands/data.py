"""Shows what a source of images holds, before a run is spent on it.

Decodes every image once and reports how many there are, their sizes, their split into
training and validation, which ones are skipped and why, and the memory they take:

    ctx-encoder data --path photos --image-size 128
    ctx-encoder data --path cycle_gan/monet2photo --split trainB --download
"""

import argparse

import numpy as np

from ctx_encoder import data
from ctx_encoder.config import schema

HEADERS = 1000  # images whose size is looked up


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "--path",
    default="",
    help="a folder of images (jpg, png, webp, bmp, tiff; folders below it included), a"
    " folder of TFRecords such as Kaggle's monet_tfrec, or the name of a TFDS data set"
    " such as cycle_gan/monet2photo; default: the photographs embedded in scikit-image",
  )
  parser.add_argument(
    "--source",
    default="auto",
    choices=("auto", "samples", "folder", "tfrecord", "tfds"),
    help="kind of --path; auto = found out from it (default)",
  )
  parser.add_argument(
    "--image-size",
    type=int,
    default=128,
    help="side that images are resized to, in pixels (default: 128)",
  )
  parser.add_argument(
    "--validation-fraction",
    type=float,
    default=0.2,
    help="share of images for validation, chosen by a hash of the file name, so that an"
    " image stays in its split when others are added (default: 0.2)",
  )
  parser.add_argument(
    "--max-images",
    type=int,
    default=0,
    help="use at most this many images; 0 = all (default)",
  )
  parser.add_argument(
    "--max-pixels",
    type=int,
    default=100_000_000,
    help="skip images with more pixels, without decoding them (default: 100000000)",
  )
  parser.add_argument(
    "--loader",
    default="auto",
    choices=("auto", "tf", "pillow"),
    help="decoder: tf.data, or threads that need no TensorFlow and give the same"
    " pixels; auto = tf if it is installed (default)",
  )
  _add_tfds_arguments(parser.add_argument_group("data sets of TFDS"))


def _add_tfds_arguments(group: argparse._ArgumentGroup) -> None:
  group.add_argument(
    "--split",
    default="train",
    help="split to read, e.g. trainA (Monet), trainB (photos) or trainB[:10%%]",
  )
  group.add_argument(
    "--data-dir",
    default="",
    help="folder of the data sets; default: ~/tensorflow_datasets",
  )
  group.add_argument(
    "--download",
    action="store_true",
    help="download and prepare the data set if it is not there; without this option"
    " nothing uses the network",
  )


def run(args: argparse.Namespace) -> int:
  """Prints what the source holds; raises the errors of `data.load`."""
  for line in describe(args):
    print(line.encode(errors="backslashreplace").decode())
  return 0


def describe(args: argparse.Namespace) -> list[str]:
  """Returns the lines to print about the source that the arguments name."""
  settings = schema.default().data
  settings.update(vars(args) | {"cache": "none", "max_bad_share": 1.0})
  loaded = data.load(settings)
  summary = loaded.summary
  training, validation = (
    sum(len(positions) for _, positions in data.decode_all(examples))
    for examples in (loaded.train, loaded.validation)
  )
  usable = training + validation
  lines = [
    f"source      {summary.source} {summary.path}".rstrip(),
    f"images      {summary.found} found, {usable} usable,"
    f" {len(summary.skipped)} skipped",
    f"size        {_sizes(loaded)}",
    f"split       {training} training, {validation} validation",
    f"in memory   {usable * args.image_size**2 * 3 / 2**20:.1f} MiB"
    f" at {args.image_size}x{args.image_size}",
  ]
  lines += [f"skipped     {name}: {why}" for name, why in summary.skipped.items()]
  return [*lines, summary.notice] if summary.notice else lines


def _sizes(loaded: data.Data) -> str:
  """Returns the smallest, median and largest of up to `HEADERS` images, by area."""
  images = [
    (examples, index)
    for examples in (loaded.train, loaded.validation)
    for index in range(len(examples))
  ]
  step = -(-len(images) // HEADERS)
  sizes = [examples.dimensions(index) for examples, index in images[::step]]
  by_area = sorted((size for size in sizes if size), key=lambda size: size[0] * size[1])
  if not by_area:
    return "unknown"
  picks = [by_area[i] for i in np.linspace(0, len(by_area) - 1, 3).astype(int)]
  names = ("smallest", "median", "largest")
  return ", ".join(f"{n} {w}x{h}" for n, (w, h) in zip(names, picks, strict=True))
