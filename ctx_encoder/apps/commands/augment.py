"""Writes a folder of images and augmented copies of each to a new folder.

The report brought its 300 Monet paintings to over 3000 like this:

    ctx-encoder augment --input paintings --output paintings_3000 --total 3000

`monet.jpg` becomes `monet.jpg` and `monet_aug01.jpg`, `monet_aug02.jpg`, ... What comes
before `_augNN` in a name is the original's, and the split into training and validation
goes by the original's name: all copies of an image are on the side of that image.

A copy depends on the seed, the original's name and the copy's number alone. So a call
that was interrupted is finished by repeating it, and a larger --copies adds to what is
there. Augmenting while training (the `augment` fields of a configuration) needs no
copies and never repeats one.
"""

import argparse
import io
import json
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from ctx_encoder.augment import make_augment
from ctx_encoder.config import schema as config
from ctx_encoder.data import decode, sources, split
from ctx_encoder.data import files as outputs

SETTINGS = "augment.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("--input", required=True, help="folder of images")
  parser.add_argument("--output", required=True, help="folder to write to")
  number = parser.add_mutually_exclusive_group()
  number.add_argument(
    "--copies", type=int, default=10, help="copies of each image (default: 10)"
  )
  number.add_argument(
    "--total", type=int, help="as many copies as bring the whole to this many images"
  )
  parser.add_argument(
    "--size",
    type=int,
    default=256,
    help="side of what is written, in pixels: images are resized by their short side"
    " and cut to a square (default: 256)",
  )
  for name, field in config.SCHEMA["augment"].items():
    default = config.PAINTINGS.get(name, field.default)
    parser.add_argument(
      f"--{name.replace('_', '-')}",
      type=float,
      default=default,
      help=f"{field.help} (default: {default:g})",
    )
  parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
  parser.add_argument(
    "--quality", type=int, default=95, help="of the JPEG files (default: 95)"
  )
  parser.add_argument(
    "--force",
    action="store_true",
    help="write into a folder that holds other files or images made with other"
    " settings, and replace those of the same name",
  )


def run(args: argparse.Namespace) -> int:
  """Writes the folder; returns 0."""
  print(augment_folder(args))
  return 0


def augment_folder(args: argparse.Namespace) -> str:
  """Writes the originals and their copies; returns what was done, in a line.

  Raises:
    FileNotFoundError: there is no folder to read.
    FileExistsError: the folder to write to holds something else.
    ValueError: an argument is out of range, or no image can be used.
  """
  from tqdm import tqdm

  for name, low, high in (("size", 16, 2048), ("quality", 1, 100), ("seed", 0, 2**31)):
    value = getattr(args, name)
    if not low <= value <= high:
      raise ValueError(f"--{name} must be within [{low}, {high}], not {value}.")
  settings = {name: getattr(args, name) for name in config.SCHEMA["augment"]}
  make_copy = _copier(args.size, args.seed, settings)
  settings |= {"size": args.size, "seed": args.seed, "quality": args.quality}
  root, output = (pathlib.Path(path).expanduser() for path in (args.input, args.output))
  if not root.is_dir():
    raise FileNotFoundError(f"--input {args.input}: there is no such folder.")
  if output.resolve().is_relative_to(root.resolve()):
    raise ValueError("--output must neither be --input nor lie in it.")
  source = sources.open_source("folder", args.input)
  plan = _plan(source.names, args.copies, args.total)
  _prepare(output, settings, set().union(*plan), args.force)

  skipped = dict(source.skipped)
  written = there = 0
  for position, names in enumerate(tqdm(plan, unit="original", disable=None)):
    missing = [i for i, name in enumerate(names) if not (output / name).exists()]
    there += len(names) - len(missing)
    if not missing:
      continue
    try:
      original = source.read(position)
      image = decode.decode(original, args.size)
    except (OSError, decode.BadImage) as error:
      skipped[source.names[position]] = str(error)
      continue
    for number in missing:
      if number:
        data = _jpeg(make_copy(image, names[0], number), args.quality)
      else:
        data = _as_it_is(original, args.size) or _jpeg(image, args.quality)
      outputs.write(output / names[number], data)
      written += 1
  for name, why in skipped.items():
    print(f"skipped  {name}: {why}", file=sys.stderr)
  if not written + there:
    raise ValueError(f"None of the {len(plan)} images in {args.input} can be used.")
  return (
    f"{args.output}  {written} images written, {there} were there,"
    f" {len(skipped)} originals skipped"
  )


def _copier(
  size: int, seed: int, strengths: dict[str, float]
) -> Callable[[np.ndarray, str, int], np.ndarray]:
  """Returns `make_copy(image, name, number)`, uint8 `[size, size, 3]` in and out."""
  augment = make_augment(image_size=size, **strengths)
  root_key = jax.random.key(seed)

  @jax.jit
  def draw(name_id, number, image):
    key = jax.random.fold_in(jax.random.fold_in(root_key, name_id), number)
    copy = augment(key, image.astype(jnp.float32) / 255)
    return jnp.rint(255 * copy).astype(jnp.uint8)

  def make_copy(image: np.ndarray, name: str, number: int) -> np.ndarray:
    return np.asarray(draw(split.example_ids([name])[0], number, image))

  return make_copy


def _plan(names: list[str], copies: int, total: int | None) -> list[list[str]]:
  """Returns the files to write for each original: itself, then its copies."""
  for name in names:
    if split.COPY.search(name):
      raise ValueError(f"--input holds copies already ({name}): give the originals.")
  if total is None:
    counts = [copies] * len(names)
  else:
    each, more = divmod(total - len(names), len(names))
    counts = [each + (position < more) for position in range(len(names))]
  if min(counts) < 0 or max(counts) < 1:
    asked = f"--copies {copies}" if total is None else f"--total {total}"
    raise ValueError(f"{asked} leaves no copy to make of {len(names)} images.")
  return [
    [f"{stem}.jpg", *(f"{stem}_aug{number:02d}.jpg" for number in range(1, count + 1))]
    for stem, count in zip(outputs.stems(names), counts, strict=True)
  ]


def _prepare(
  output: pathlib.Path, settings: dict[str, float], planned: set[str], force: bool
) -> None:
  """Makes the folder and notes the settings in it, unless it holds something else."""
  found = outputs.files(output)
  note = output / SETTINGS
  others = sorted(found - planned - {SETTINGS})
  same = note.is_file() and note.read_text() == json.dumps(settings, indent=1)
  if others and not force:
    raise FileExistsError(
      f"--output {output} holds {len(others)} files that this call does not write, such"
      f" as {others[0]}: give an empty folder, or --force to write beside them."
    )
  if found and not same and not force:
    raise FileExistsError(
      f"--output {output} holds images made with other settings: give an empty folder,"
      " or --force to replace them."
    )
  for name in found if not same else ():
    if split.COPY.sub("", name) in planned:
      (output / name).unlink()
  outputs.write(note, json.dumps(settings, indent=1).encode())


def _as_it_is(data: bytes | np.ndarray, size: int) -> bytes | None:
  """Returns a JPEG of the size that is wanted, which needs no second compression."""
  if isinstance(data, bytes) and data.startswith(b"\xff\xd8"):
    return data if decode.dimensions(data) == (size, size) else None
  return None


def _jpeg(image: np.ndarray, quality: int) -> bytes:
  file = io.BytesIO()
  Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
  return file.getvalue()
