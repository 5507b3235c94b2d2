"""Shows what a source of images holds, before a run is spent on it.

Decodes every image once and reports how many there are, their sizes, their split into
training and validation, which ones are skipped and why, and the memory they take:

    ctx-encoder data --path photos --image-size 128
    ctx-encoder data --path cycle_gan/monet2photo --split trainB --download

--path is a folder of images (those in folders below it included), a folder of TFRecords
such as Kaggle's monet_tfrec, or the name of a TFDS data set, whose splits may be cut:
--split 'trainB[:10%]'. Without it, the embedded photographs are used.
Nothing uses the network without --download.
"""

import argparse

import numpy as np

from ctx_encoder import config, data
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.data.paths import printable

HEADERS = 1000  # images whose size is looked up
FIELDS = ("path", "source", "split", "data_dir", "download", "image_size")
FIELDS += ("validation_fraction", "max_images", "max_pixels", "loader")


def add_arguments(parser: Parser) -> None:
  """Adds an option for each of `FIELDS`, the fields of a configuration's section."""
  for name in FIELDS:
    field, option = config.FIELDS[f"data.{name}"], f"--{name.replace('_', '-')}"
    text = field.help.replace("%", "%%")
    if field.type is bool:
      parser.add_argument(option, action="store_true", help=text)
      continue
    parser.add_argument(
      option,
      type=field.type,
      default=field.default,
      choices=field.choices or None,
      help=text,
    )


def run(args: argparse.Namespace) -> int:
  """Prints what the source holds; raises the errors of `data.load`."""
  for line in describe(args):
    print(printable(line))
  return 0


def describe(args: argparse.Namespace) -> list[str]:
  """Returns the lines to print about the source that the arguments name."""
  settings = config.default().data
  # TensorFlow, which loads for seconds, gains nothing for images decoded only once.
  loader = "pillow" if args.loader == "auto" else args.loader
  changes = {"loader": loader, "cache": "none", "max_bad_share": 1.0}
  settings.update(vars(args) | changes)
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
