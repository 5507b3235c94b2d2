"""Turns photographs into pictures in the manner of paintings: more training data.

Each photograph of --content is given a painting of --style, which one depends on --seed
and the photograph's name, and the painting's colours. Then its pixels are optimised
until its textures are the painting's (neural style transfer, Gatys et al., CVPR 2016):

    ctx-encoder stylize --content PHOTOS --style PAINTINGS --output MORE/stylized
    ctx-encoder stylize --content PHOTOS --style PAINTINGS --output MORE/stylized \\
        --features vgg16 --weights vgg16-397923af.pth

`photo.jpg` in the manner of `monet.jpg` becomes `photo__monet.png`. A call that was
interrupted is finished by repeating it, and a larger --count adds to what is there. No
file that is there is replaced.

How much is carried over depends on --features. Random filters need no file, and 0.8 s
for a picture of 128 pixels on 2 CPU cores. They see texture of up to 20 pixels and not
what it belongs to: the painting's colours and strokes come, but follow no objects. A
VGG trained on ImageNet is better, by as many layers as the file of --weights holds:
Gatys's five for style and relu4_2 for content, or of a shorter file all (torchvision's
.pth, Keras's .h5; nothing is downloaded). The first four layers take 3.5 s.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from PIL import Image

from ctx_encoder import losses
from ctx_encoder.apps.stylize import stylize
from ctx_encoder.data import decode, files, sources, split
from ctx_encoder.models import VGG, feature_function
from ctx_encoder.models.feature_nets import FeatureNetwork, random_filters
from ctx_encoder.models.weights import read as weights

SETTINGS = "stylize.json"
NETWORKS = {"vgg16": VGG(16), "vgg19": VGG(19)}
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")  # Gatys's
CONTENT_LAYERS = ("relu4_2", "relu3_2", "relu2_2", "relu1_2", "relu1_1")  # the first

_RANGES = {
  "image_size": (32, 1024),
  "count": (0, 2**31),
  "style_weight": (1e-6, 1e6),
  "content_weight": (0, 1e6),
  "tv_weight": (0, 1e6),
  "steps": (1, 10000),
  "batch_size": (1, 1024),
  "seed": (0, 2**31),
}


class Job(NamedTuple):
  """A picture to make, by positions of content and style and by its file's name."""

  content: int
  style: int
  output: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("--content", required=True, help="folder of photographs")
  parser.add_argument("--style", required=True, help="folder of paintings")
  parser.add_argument("--output", required=True, help="folder to write to")
  parser.add_argument(
    "--features",
    choices=("random", *NETWORKS),
    default="random",
    help="what texture is measured on: random filters or a VGG (default: random)",
  )
  parser.add_argument("--weights", help="file of the VGG's weights or first layers")
  parser.add_argument(
    "--keep-colors",
    action="store_true",
    help="keep the photograph's colours and take the painting's texture alone",
  )
  recipe = stylize.Recipe()
  for name, default, what in (
    ("count", 0, "photographs to take; 0 = all"),
    ("image-size", 128, "side of the pictures, cut to a square, in pixels"),
    ("steps", recipe.steps, "updates of the pixels, by L-BFGS"),
    ("style-weight", recipe.style_weight, "of the distance to the painting's texture"),
    ("content-weight", recipe.content_weight, "of that to what the photograph shows"),
    ("tv-weight", recipe.tv_weight, "of the total variation, against speckles"),
    ("batch-size", 8, "pictures at a time"),
    ("seed", 0, "which painting goes with which photograph"),
  ):
    what += f" (default: {default:g})"
    parser.add_argument(f"--{name}", type=type(default), default=default, help=what)


def run(args: argparse.Namespace) -> int:
  """Writes the folder; returns 0, or 1 where it cannot."""
  try:
    print(stylize_folder(args))
  except (OSError, ValueError, ImportError) as error:
    print(f"ctx-encoder stylize: {error}", file=sys.stderr)
    return 1
  return 0


def stylize_folder(args: argparse.Namespace) -> str:
  """Writes the pictures; returns what was done, and how to train on them.

  Raises:
    FileNotFoundError: there is no folder to read.
    FileExistsError: the folder to write to holds something else.
    ValueError: an argument is out of range, or no image can be used.
  """
  from tqdm import tqdm

  for name, (low, high) in _RANGES.items():
    if not low <= (value := getattr(args, name)) <= high:
      flag = name.replace("_", "-")
      raise ValueError(f"--{flag} must be within [{low:g}, {high:g}], not {value:g}.")
  output = pathlib.Path(args.output).expanduser()
  content, style = (_open(name, args, output) for name in ("content", "style"))
  features, recipe = _features_and_recipe(args)
  if args.count > len(content.names):
    raise ValueError(f"--count {args.count}: there are {len(content.names)} images.")
  skipped = {f"{args.content}/{name}": why for name, why in content.skipped.items()}
  skipped |= {f"{args.style}/{name}": why for name, why in style.skipped.items()}
  jobs = _plan(content, style, args, skipped)
  _prepare(output, args, recipe, {job.output for job in jobs})
  jobs = [jobs[position] for position in split.subset(content.names, args.count)]
  todo = [job for job in jobs if not (output / job.output).exists()]
  there, written = len(jobs) - len(todo), 0
  paint = stylize.make_stylize(features, recipe)
  size = min(args.batch_size, len(todo))
  with tqdm(total=len(todo), unit="picture", disable=None) as progress:
    for batch in _batches(todo, size, content, style, args, skipped):
      # The last one is filled up: a shape of its own would be compiled anew.
      _, *images = zip(*batch, *batch[-1:] * (size - len(batch)), strict=True)
      for (job, *_), result in zip(batch, paint(*map(np.stack, images)), strict=False):
        files.write(output / job.output, _png(result))
      written += len(batch)
      progress.update(len(batch))
  for name, why in skipped.items():
    print(f"skipped  {name}: {why}", file=sys.stderr)
  if not written + there:
    raise ValueError(f"None of the {len(jobs)} images in {args.content} can be used.")
  return (
    f"{args.output}  {written} pictures written, {there} were there,"
    f" {len(skipped)} images skipped\n"
    "Train on them: python launch.py --config=configs/monet_combined.py"
    f" --config.data.path={shlex.quote(args.output)}\n"
    "On the paintings too: put both folders into one, and give that; all below is read."
  )


def _open(name: str, args: argparse.Namespace, output: pathlib.Path) -> sources.Source:
  path = getattr(args, name)
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    raise FileNotFoundError(f"--{name} {path}: there is no such folder.")
  if output.resolve().is_relative_to(root.resolve()):
    raise ValueError(f"--output must neither be --{name} nor lie in it.")
  source = sources.open_source("folder", path)
  if copies := [name for name in source.names if split.COPY.search(name)]:
    raise ValueError(f"--{name} holds copies ({copies[0]}): give the originals.")
  return source


def _features_and_recipe(
  args: argparse.Namespace,
) -> tuple[losses.FeatureFunction, stylize.Recipe]:
  """Returns what texture is measured on, and what is asked of the pictures."""
  names = ("style_weight", "content_weight", "tv_weight", "steps", "keep_colors")
  recipe = stylize.Recipe(**{name: getattr(args, name) for name in names})
  if args.features == "random":
    if args.weights:
      raise ValueError("--weights needs --features vgg16 or vgg19; random has none.")
    filters = random_filters.multi_scale_features(jax.random.key(0), kernels=(5,))
    return random_filters.pyramid(filters), recipe
  if not args.weights:
    raise ValueError(f"--features {args.features} needs --weights, the file of a VGG.")
  network, arrays = NETWORKS[args.features], weights.load(args.weights)
  held = _layers_held(network, arrays)
  style = STYLE_LAYERS if set(STYLE_LAYERS) <= set(held) else tuple(held)
  content = tuple(layer for layer in CONTENT_LAYERS if layer in held)[:1]
  # Of a file with none of them let the network say what is missing.
  taps = dict.fromkeys(style + content) or CONTENT_LAYERS
  features = feature_function(network, arrays, list(taps))
  return features, dataclasses.replace(
    recipe, style_layers=style, content_layers=content
  )


def _layers_held(network: FeatureNetwork, arrays: weights.Arrays) -> list[str]:
  """Returns the layers with convolutions, up to the first whose weights are missing."""
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
  """Returns a job for each photograph, and notes paintings that cannot be used."""
  paintings = []
  for position, name in enumerate(style.names):
    try:
      decode.decode(style.read(position), args.image_size)
      paintings.append(position)
    except (OSError, decode.BadImage) as error:
      skipped[f"{args.style}/{name}"] = str(error)
  if not paintings:
    raise ValueError(f"None of the {len(style.names)} images in {args.style} will do.")
  stems = files.stems(content.names)
  jobs = []
  for position, (name, stem) in enumerate(zip(content.names, stems, strict=True)):
    drawn = hashlib.blake2b(os.fsencode(f"{args.seed}/{name}"), digest_size=8).digest()
    painting = paintings[int.from_bytes(drawn, "big") % len(paintings)]
    manner = pathlib.PurePosixPath(style.names[painting]).stem
    jobs.append(Job(position, painting, f"{stem}__{manner}.png"))
  return jobs


def _batches(
  jobs: list[Job],
  size: int,
  content: sources.Source,
  style: sources.Source,
  args: argparse.Namespace,
  skipped: dict[str, str],
) -> Iterator[list[tuple[Job, np.ndarray, np.ndarray]]]:
  """Yields `size` jobs at a time, in the end fewer, each with its two pictures."""
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


def _prepare(
  output: pathlib.Path,
  args: argparse.Namespace,
  recipe: stylize.Recipe,
  planned: set[str],
) -> None:
  """Makes the folder and notes the settings in it, unless it holds something else."""
  settings = {name: getattr(args, name) for name in ("image_size", "seed", "features")}
  settings["weights"] = pathlib.Path(args.weights).name if args.weights else None
  text = json.dumps(settings | dataclasses.asdict(recipe), indent=1)
  found = files.visible_files(output)
  note = output / SETTINGS
  if found and not (note.is_file() and note.read_text() == text):
    what = "files that were not made with these settings"
  elif others := sorted(found - planned - {SETTINGS}):
    what = f"{len(others)} files that this call does not write, such as {others[0]}"
  else:
    files.write(note, text)
    return
  raise FileExistsError(f"--output {output} holds {what}: give an empty folder.")


def _png(image: np.ndarray) -> bytes:
  file = io.BytesIO()
  Image.fromarray(image).save(file, "PNG")
  return file.getvalue()
