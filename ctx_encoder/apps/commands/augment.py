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
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from ctx_encoder.apps import folders
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.augment import make_augment
from ctx_encoder.config import FIELDS, PAINTINGS, Augment
from ctx_encoder.data import decode, files, split

# (image, name, number) to a copy; images are uint8 `[size, size, 3]`.
MakeCopy = Callable[[np.ndarray, str, int], np.ndarray]


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("--input", required=True, help="folder of images")
  parser.add_argument("--output", required=True, help="folder to write to")
  number = parser.add_mutually_exclusive_group()
  number.add_argument("--copies", type=int, default=10, help="copies of each image")
  number.add_argument(
    "--total", type=int, help="number of images to write, originals included"
  )
  parser.number(
    "--size",
    256,
    "side of the images written, in pixels: the short side is resized to it, and the"
    " centre square is kept",
    16,
    2048,
  )
  for name, default in vars(Augment(**PAINTINGS)).items():
    parser.field(FIELDS[f"augment.{name}"], default)
  parser.number("--seed", 0, "seed of the copies", 0, 2**31)
  parser.number("--quality", 95, "quality of the JPEG files", 1, 100)
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
    ValueError: there is no copy to make, or no image can be used.
  """
  output = Path(args.output).expanduser()
  source = folders.open_originals("input", args.input, output)
  plan = _plan(source.names, args.copies, args.total)
  strengths = {name: getattr(args, name) for name in vars(Augment())}
  settings = strengths | {n: getattr(args, n) for n in ("size", "seed", "quality")}
  planned = set().union(*plan)
  folders.claim(output, "augment.json", settings, planned, force=args.force)
  make_copy = _copier(args.size, args.seed, strengths)
  skipped = dict(source.skipped)
  written = present = 0
  for position, names in enumerate(tqdm(plan, unit="original", disable=None)):
    missing = [i for i, name in enumerate(names) if not (output / name).exists()]
    present += len(names) - len(missing)
    try:
      jpegs = _jpegs(source.read(position), names[0], missing, make_copy, args)
    except (OSError, decode.BadImage) as error:
      skipped[source.names[position]] = str(error)
      continue
    for number, jpeg in zip(missing, jpegs, strict=True):
      files.write(output / names[number], jpeg)
    written += len(missing)
  folders.end(args.input, len(plan), written + present, skipped)
  print(
    f"{args.output}  {written} images written, {present} existed,"
    f" {len(skipped)} originals skipped"
  )
  return 0


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


def _jpegs(
  original: bytes | np.ndarray,
  name: str,
  numbers: list[int],
  make_copy: MakeCopy,
  args: argparse.Namespace,
) -> list[bytes]:
  """Returns the copies of some numbers as JPEGs; number 0 is the original."""
  if not numbers:
    return []
  image = decode.decode(original, args.size)

  def jpeg(number: int) -> bytes:
    if not number and _is_jpeg(original, args.size):
      return bytes(original)  # not compressed a second time
    file, made = io.BytesIO(), make_copy(image, name, number) if number else image
    Image.fromarray(made).save(file, "JPEG", quality=args.quality, subsampling=0)
    return file.getvalue()

  return [jpeg(number) for number in numbers]


def _is_jpeg(data: bytes | np.ndarray, size: int) -> bool:
  """Returns whether an image is a JPEG of that side already."""
  jpeg = isinstance(data, bytes) and data.startswith(b"\xff\xd8")
  return jpeg and decode.dimensions(data) == (size, size)
