"""Shows what a source of images holds, before a run is spent on it.

Decodes every image once and tells how many there are, how large they are, how they
are split, which ones are skipped and why, and how much memory they take decoded:

    ctx-encoder data --path photos --image-size 128
"""

import argparse

import numpy as np

from ctx_encoder import data

HEADERS = 1000  # images whose size is looked up


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "--path",
    default="",
    help="a folder of images (jpg, png, webp, bmp, tiff; nested ones count), a folder"
    " of TFRecords such as Kaggle's monet_tfrec, or the name of a TFDS data set such as"
    " cycle_gan/monet2photo; default: the photographs embedded in scikit-image",
  )
  parser.add_argument(
    "--source",
    default="auto",
    choices=("auto", "samples", "folder", "tfrecord", "tfds"),
    help="what --path is; auto finds out (default)",
  )
  parser.add_argument(
    "--split",
    default="train",
    help="TFDS only: its split, e.g. trainA (Monet), trainB (photos) or trainB[:10%%]",
  )
  parser.add_argument(
    "--data-dir",
    default="",
    help="TFDS only: where its data sets are kept; default: ~/tensorflow_datasets",
  )
  parser.add_argument(
    "--download",
    action="store_true",
    help="TFDS only: download and prepare the data set if it is not there. Without this"
    " nothing uses the network",
  )
  parser.add_argument(
    "--image-size",
    type=int,
    default=128,
    help="side the images are brought to, in pixels (default: 128)",
  )
  parser.add_argument(
    "--validation-fraction",
    type=float,
    default=0.2,
    help="share kept for validation, by a hash of the file name, so that an image stays"
    " on its side when others are added (default: 0.2)",
  )
  parser.add_argument(
    "--max-images",
    type=int,
    default=0,
    help="look at this many images at the most; 0 = all (default)",
  )
  parser.add_argument(
    "--max-pixels",
    type=int,
    default=100_000_000,
    help="skip images with more pixels without decoding them (default: 100000000)",
  )
  parser.add_argument(
    "--loader",
    default="auto",
    choices=("auto", "tf", "pillow"),
    help="what decodes: tf.data, or threads, which need no TensorFlow and give the same"
    " pixels; auto = tf where it is installed (default)",
  )


def run(args: argparse.Namespace) -> int:
  """Describes the source; returns 0."""
  for line in describe(args):
    print(line.encode(errors="backslashreplace").decode())
  return 0


def describe(args: argparse.Namespace) -> list[str]:
  """Returns the lines to print about the source that the arguments name."""
  loaded = data.load(
    source=args.source,
    path=args.path,
    split=args.split,
    data_dir=args.data_dir,
    download=args.download,
    image_size=args.image_size,
    validation_fraction=args.validation_fraction,
    max_images=args.max_images,
    max_pixels=args.max_pixels,
    cache="none",
    loader=args.loader,
  )
  summary = loaded.summary
  good = {
    name: sum(len(positions) for _, positions in data.decode_all(examples))
    for name, examples in (("train", loaded.train), ("validation", loaded.validation))
  }
  usable = sum(good.values())
  lines = [
    f"source      {summary.source} {summary.path}".rstrip(),
    f"images      {summary.found} found, {usable} usable,"
    f" {len(summary.skipped)} skipped",
    f"size        {_sizes(loaded)}",
    f"split       {good['train']} training, {good['validation']} validation",
    f"in memory   {usable * args.image_size**2 * 3 / 2**20:.1f} MiB"
    f" at {args.image_size}x{args.image_size}",
  ]
  lines += [f"skipped     {name}: {why}" for name, why in summary.skipped.items()]
  return [*lines, summary.notice] if summary.notice else lines


def _sizes(loaded: data.Data) -> str:
  """Returns the smallest, median and largest of up to `HEADERS` images, by area."""
  everyone = [
    (examples, index)
    for examples in (loaded.train, loaded.validation)
    for index in range(len(examples))
  ]
  looked_at = everyone[:: -(-len(everyone) // HEADERS)]
  sizes = [examples.dimensions(index) for examples, index in looked_at]
  by_area = sorted((size for size in sizes if size), key=lambda size: size[0] * size[1])
  if not by_area:
    return "unknown"
  picks = [by_area[i] for i in np.linspace(0, len(by_area) - 1, 3).astype(int)]
  names = ("smallest", "median", "largest")
  return ", ".join(f"{n} {w}x{h}" for n, (w, h) in zip(names, picks, strict=True))
