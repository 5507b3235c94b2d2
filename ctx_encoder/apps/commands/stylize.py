"""Turns photographs into painting-like pictures, as additional training images.

Each photograph in --content is paired with a painting in --style, chosen by --seed and
the photograph's name. The photograph gets the painting's colours; then its pixels are
optimised until its textures match the painting's (neural style transfer, Gatys et al.,
CVPR 2016):

    ctx-encoder stylize --content PHOTOS --style PAINTINGS --output MORE/stylized
    ctx-encoder stylize --content PHOTOS --style PAINTINGS --output MORE/stylized \\
        --features vgg16 --weights vgg16-397923af.pth

`photo.jpg` with the style of `monet.jpg` becomes `photo__monet.png`. Repeating a call
completes an interrupted one, and a larger --count adds pictures. Existing files are
never replaced.

The result depends on --features. Random filters need no file and take 0.8 s for a
picture of 128 pixels on 2 CPU cores. They measure textures of up to 20 pixels, so the
painting's colours and strokes are transferred, but do not follow objects. A VGG trained
on ImageNet gives better pictures. Its layers are Gatys's five for style and relu4_2 for
content or, if the file of --weights holds fewer, all that it holds (torchvision's .pth
or Keras's .h5; nothing is downloaded). The first four layers take 3.5 s.
"""

import argparse
import dataclasses
import hashlib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from ctx_encoder.apps import folders
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.apps.stylize import stylize
from ctx_encoder.data import decode, files, sources, split
from ctx_encoder.evaluation import figures
from ctx_encoder.models import VGG, feature_function
from ctx_encoder.models.feature_nets import FeatureNetwork, random_filters
from ctx_encoder.models.weights import read as weights

NETWORKS = {"vgg16": VGG(16), "vgg19": VGG(19)}
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")  # Gatys et al.
# The first of these whose weights are given; relu4_2 in Gatys et al.
CONTENT_LAYERS = ("relu4_2", "relu3_2", "relu2_2", "relu1_2", "relu1_1")


class Job(NamedTuple):
  """A picture to make: positions of content and style, and the file's name."""

  content: int
  style: int
  output: str


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("--content", required=True, help="folder of photographs")
  parser.add_argument("--style", required=True, help="folder of paintings")
  parser.add_argument("--output", required=True, help="folder to write to")
  parser.add_argument(
    "--features",
    choices=("random", *NETWORKS),
    default="random",
    help="network that measures texture: random filters or a VGG",
  )
  parser.add_argument(
    "--weights", help="file with weights of the VGG or its first layers"
  )
  parser.add_argument(
    "--keep-colors",
    action="store_true",
    help="keep the photograph's colours and transfer only the painting's texture",
  )
  recipe = stylize.Recipe()
  parser.number("--count", 0, "number of photographs; 0 = all", 0, 2**31)
  side = "side of the pictures, cropped to squares, in pixels"
  parser.number("--image-size", 128, side, 32, 1024)
  parser.number("--steps", recipe.steps, "L-BFGS updates of the pixels", 1, 10_000)
  for name, low, what in (
    ("style", 1e-6, "style term"),
    ("content", 0, "content term"),
    ("tv", 0, "total variation, against speckles"),
  ):
    default = getattr(recipe, f"{name}_weight")
    parser.number(f"--{name}-weight", default, f"weight of the {what}", low, 1e6)
  parser.number("--batch-size", 8, "pictures optimised at a time", 1, 1024)
  parser.number("--seed", 0, "chooses the painting for each photograph", 0, 2**31)


def run(args: argparse.Namespace) -> int:
  """Writes the pictures, and prints how to train on them.

  Raises:
    FileNotFoundError: --content or --style does not exist.
    FileExistsError: --output holds other files.
    ValueError: arguments do not fit together, or no image can be used.
  """
  output = Path(args.output).expanduser()
  content, style = (
    folders.open_originals(name, getattr(args, name), output)
    for name in ("content", "style")
  )
  features, recipe = _features_and_recipe(args)
  if args.count > len(content.names):
    raise ValueError(f"--count {args.count}: there are {len(content.names)} images.")
  skipped = {f"{args.content}/{name}": why for name, why in content.skipped.items()}
  skipped |= {f"{args.style}/{name}": why for name, why in style.skipped.items()}
  jobs = _plan(content, style, args, skipped)
  settings = {name: getattr(args, name) for name in ("image_size", "seed", "features")}
  settings["weights"] = Path(args.weights).name if args.weights else None
  settings |= dataclasses.asdict(recipe)
  folders.claim(output, "stylize.json", settings, {job.output for job in jobs})
  jobs = [jobs[position] for position in split.subset(content.names, args.count)]
  todo = [job for job in jobs if not (output / job.output).exists()]
  existing, written = len(jobs) - len(todo), 0
  paint = stylize.make_stylize(features, recipe)
  size = min(args.batch_size, len(todo))
  with tqdm(total=len(todo), unit="picture", disable=None) as progress:
    for batch in _batches(todo, size, content, style, args, skipped):
      # The last batch is padded, so that only one shape is compiled.
      _, *images = zip(*batch, *batch[-1:] * (size - len(batch)), strict=True)
      for (job, *_), result in zip(batch, paint(*map(np.stack, images)), strict=False):
        figures.save_png(output / job.output, result)
      written += len(batch)
      progress.update(len(batch))
  folders.end(args.content, len(jobs), written + existing, skipped)
  print(
    f"{args.output}  {written} pictures written, {existing} existed,"
    f" {len(skipped)} images skipped\n"
    "Train on them: python launch.py --config=configs/monet_combined.py"
    f" --config.data.path={shlex.quote(args.output)}\n"
    "To train on the paintings too, put both folders into one and name that: folders"
    " are read with their subfolders."
  )
  return 0


def _features_and_recipe(
  args: argparse.Namespace,
) -> tuple[stylize.Features, stylize.Recipe]:
  """Returns the feature function, and the recipe with its layers."""
  names = ("style_weight", "content_weight", "tv_weight", "steps", "keep_colors")
  recipe = stylize.Recipe(**{name: getattr(args, name) for name in names})
  if args.features == "random":
    if args.weights:
      raise ValueError("--weights needs --features vgg16 or vgg19.")
    filters = random_filters.multi_scale_features(jax.random.key(0), kernels=(5,))
    return random_filters.pyramid(filters), recipe
  if not args.weights:
    raise ValueError(f"--features {args.features} needs --weights, the file of a VGG.")
  network, arrays = NETWORKS[args.features], weights.load(args.weights)
  held = _layers_held(network, arrays)
  style = STYLE_LAYERS if set(STYLE_LAYERS) <= set(held) else tuple(held)
  content = tuple(layer for layer in CONTENT_LAYERS if layer in held)[:1]
  # If the file holds none of the layers, the network reports what is missing.
  taps = dict.fromkeys(style + content) or CONTENT_LAYERS
  features = feature_function(network, arrays, list(taps))
  return features, dataclasses.replace(
    recipe, style_layers=style, content_layers=content
  )


def _layers_held(network: FeatureNetwork, arrays: weights.Arrays) -> list[str]:
  """Returns the convolution layers before the first one without weights."""
  held = []
  for convolution in network.convolutions:
    names = f"{convolution.torchvision}.weight", f"{convolution.keras}/kernel"
    if not any(name in arrays for name in names):
      break
    held.append(convolution.layer)
  return held


def _plan(
  content: sources.Source,
  style: sources.Source,
  args: argparse.Namespace,
  skipped: dict[str, str],
) -> list[Job]:
  """Returns a job for each photograph; adds unusable paintings to `skipped`."""
  paintings = []
  for position, name in enumerate(style.names):
    try:
      decode.decode(style.read(position), args.image_size)
      paintings.append(position)
    except (OSError, decode.BadImage) as error:
      skipped[f"{args.style}/{name}"] = str(error)
  if not paintings:
    raise ValueError(
      f"None of the {len(style.names)} images in {args.style} can be used."
    )
  stems = files.stems(content.names)
  jobs = []
  for position, (name, stem) in enumerate(zip(content.names, stems, strict=True)):
    drawn = hashlib.blake2b(os.fsencode(f"{args.seed}/{name}"), digest_size=8).digest()
    painting = paintings[int.from_bytes(drawn, "big") % len(paintings)]
    style_stem = PurePosixPath(style.names[painting]).stem
    jobs.append(Job(position, painting, f"{stem}__{style_stem}.png"))
  return jobs


def _batches(
  jobs: list[Job],
  size: int,
  content: sources.Source,
  style: sources.Source,
  args: argparse.Namespace,
  skipped: dict[str, str],
) -> Iterator[list[tuple[Job, np.ndarray, np.ndarray]]]:
  """Yields batches of up to `size` jobs, each with its photograph and painting."""
  batch = []
  for job in jobs:
    try:
      photograph = decode.decode(content.read(job.content), args.image_size)
      painting = decode.decode(style.read(job.style), args.image_size)
    except (OSError, decode.BadImage) as error:
      skipped[f"{args.content}/{content.names[job.content]}"] = str(error)
      continue
    batch.append((job, photograph, painting))
    if len(batch) == size:
      yield batch
      batch = []
  if batch:
    yield batch
