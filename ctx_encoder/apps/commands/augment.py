"""Writes the images of a folder and augmented copies of each to a new folder.

The report extended its 300 Monet paintings to over 3000 in this way:

    ctx-encoder augment --input paintings --output paintings_3000 --total 3000

`monet.jpg` becomes `monet.jpg` and `monet_aug01.jpg`, `monet_aug02.jpg`, ... The split
into training and validation uses the name before `_augNN`, so all copies of an image
are in the same split as the original.

A copy depends only on the seed, the original's name and the copy's number. So repeating
an interrupted call completes it, and a larger --copies adds to the existing files.
Augmentation during training (the `augment` fields of a configuration) needs no copies
and never repeats one.
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
from ctx_encoder.config import FIELDS, PAINTINGS, Augment
from ctx_encoder.data import decode, files, sources, split

SETTINGS = "augment.json"

# (image, name, number) to a copy; images are uint8 `[size, size, 3]`.
MakeCopy = Callable[[np.ndarray, str, int], np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("--input", required=True, help="folder of images")
  parser.add_argument("--output", required=True, help="folder to write to")
  number = parser.add_mutually_exclusive_group()
  number.add_argument(
    "--copies", type=int, default=10, help="copies of each image (default: 10)"
  )
  number.add_argument(
    "--total", type=int, help="number of images to write, originals included"
  )
  parser.add_argument(
    "--size",
    type=int,
    default=256,
    help="side of the images written, in pixels: the short side is resized to it, and"
    " the centre square is kept (default: 256)",
  )
  for name in vars(Augment()):
    field = FIELDS[f"augment.{name}"]
    default = PAINTINGS.get(name, field.default)
    parser.add_argument(
      f"--{name.replace('_', '-')}",
      type=float,
      default=default,
      help=f"{field.help} (default: {default:g})",
    )
  parser.add_argument(
    "--seed", type=int, default=0, help="seed of the copies (default: 0)"
  )
  parser.add_argument(
    "--quality", type=int, default=95, help="quality of the JPEG files (default: 95)"
  )
  parser.add_argument(
    "--force",
    action="store_true",
    help="write into a folder with other files, or with images made with other"
    " settings, which are replaced",
  )


def run(args: argparse.Namespace) -> int:
  """Writes the originals and their copies.

  Raises:
    FileNotFoundError: the input folder does not exist.
    FileExistsError: the output folder holds something else.
    ValueError: an argument is out of range, or no image can be used.
  """
  for name, low, high in (("size", 16, 2048), ("quality", 1, 100), ("seed", 0, 2**31)):
    value = getattr(args, name)
    if not low <= value <= high:
      raise ValueError(f"--{name} must be within [{low}, {high}], not {value}.")
  strengths = {name: getattr(args, name) for name in vars(Augment())}
  make_copy = _copier(args.size, args.seed, strengths)
  root, output = (pathlib.Path(path).expanduser() for path in (args.input, args.output))
  if not root.is_dir():
    raise FileNotFoundError(f"--input {args.input}: there is no such folder.")
  if output.resolve().is_relative_to(root.resolve()):
    raise ValueError("--output must neither be --input nor lie in it.")
  source = sources.open_source("folder", args.input)
  plan = _plan(source.names, args.copies, args.total)
  settings = strengths | {n: getattr(args, n) for n in ("size", "seed", "quality")}
  _prepare(output, settings, set().union(*plan), args.force)
  written, present, skipped = _write(source, plan, output, make_copy, args)
  for name, why in skipped.items():
    print(f"skipped  {name}: {why}", file=sys.stderr)
  if not written + present:
    raise ValueError(f"None of the {len(plan)} images in {args.input} can be used.")
  print(
    f"{args.output}  {written} images written, {present} were there,"
    f" {len(skipped)} originals skipped"
  )
  return 0


def _write(
  source: sources.Source,
  plan: list[list[str]],
  output: pathlib.Path,
  make_copy: MakeCopy,
  args: argparse.Namespace,
) -> tuple[int, int, dict[str, str]]:
  """Writes the files that are missing.

  Returns:
    The numbers of files written and of files present before, and {name: reason} of
    unusable originals.
  """
  from tqdm import tqdm

  skipped = dict(source.skipped)
  written = present = 0
  for position, names in enumerate(tqdm(plan, unit="original", disable=None)):
    missing = [i for i, name in enumerate(names) if not (output / name).exists()]
    present += len(names) - len(missing)
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
        encoded = _jpeg(make_copy(image, names[0], number), args.quality)
      else:
        encoded = _unchanged(original, args.size) or _jpeg(image, args.quality)
      files.write(output / names[number], encoded)
      written += 1
  return written, present, skipped


def _copier(size: int, seed: int, strengths: dict[str, float]) -> MakeCopy:
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
  """Returns the names to write for each original: its own, then its copies'."""
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
    for stem, count in zip(files.stems(names), counts, strict=True)
  ]


def _prepare(
  output: pathlib.Path, settings: dict[str, float], planned: set[str], force: bool
) -> None:
  """Creates the folder and saves the settings in it, unless it holds other files."""
  found = files.visible_files(output)
  note = output / SETTINGS
  others = sorted(found - planned - {SETTINGS})
  text = json.dumps(settings, indent=1)
  same = note.is_file() and note.read_text() == text
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
  files.write(note, text)


def _unchanged(data: bytes | np.ndarray, size: int) -> bytes | None:
  """Returns a JPEG that has the right size, as it needs no second compression."""
  if isinstance(data, bytes) and data.startswith(b"\xff\xd8"):
    return data if decode.dimensions(data) == (size, size) else None
  return None


def _jpeg(image: np.ndarray, quality: int) -> bytes:
  file = io.BytesIO()
  Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
  return file.getvalue()
