"""Fills holes in pictures of any size, with the network of a run.

The mask is a picture of the same size, brighter than half = hole; or the holes are
painted into the picture itself, in one colour:

    ctx-encoder inpaint --workdir runs/quickstart --image photo.jpg --mask mask.png \\
        --output completed.png
    ctx-encoder inpaint --workdir runs/quickstart --image photo.png \\
        --hole-color white --output completed.png --grid

Of folders, each picture takes the mask of the same name, whatever the extensions; one
mask file serves all of them. A picture that cannot be completed is named, the others
are, and the exit code is 1:

    ctx-encoder inpaint --workdir runs/quickstart --image photos --mask masks \\
        --output completed
    ctx-encoder inpaint --workdir runs/quickstart --image 'photos/*.jpg' \\
        --hole-color '#ff00ff' --grow 2 --output completed
"""

import argparse
import glob
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor
from tqdm import tqdm

from ctx_encoder import inpaint, xla
from ctx_encoder.data import files
from ctx_encoder.data.decode import EXTENSIONS
from ctx_encoder.evaluation import figures

_OPTIONS = {
  ".jpg": {"quality": 95},
  ".jpeg": {"quality": 95},
  ".webp": {"lossless": True},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "--workdir", required=True, help="folder of the run, as launch.py made it"
  )
  parser.add_argument(
    "--image",
    nargs="+",
    required=True,
    metavar="IN",
    help="pictures, folders of them, or patterns such as 'photos/*.jpg'",
  )
  parser.add_argument(
    "--mask", help="picture of the mask, or the folder of masks for a folder"
  )
  parser.add_argument(
    "--output",
    required=True,
    help="file to write for one picture, its extension decides on the format (.png"
    " keeps the known pixels as they are, .jpg does not); else a folder, into which"
    " PNG files of the same names go",
  )
  parser.add_argument(
    "--mask-polarity",
    choices=("white", "black"),
    default="white",
    help="which part of the mask's picture is the hole (default: white)",
  )
  parser.add_argument(
    "--hole-color",
    metavar="COLOR",
    help="there is no mask: what has this colour is the hole; white, black, #rrggbb, or"
    " another name that CSS knows",
  )
  parser.add_argument(
    "--hole-tolerance",
    type=int,
    default=16,
    help="how far each channel, of 0 to 255, may be from --hole-color (default: 16)",
  )
  parser.add_argument(
    "--grow",
    type=int,
    default=0,
    metavar="PIXELS",
    help="make holes larger all around: 2 or 3 take away the rim that JPEG leaves"
    " around a painted hole (default: 0)",
  )
  parser.add_argument(
    "--strategy",
    choices=inpaint.STRATEGIES,
    default="auto",
    help="what the network is shown: crops, a square around each hole with as much"
    " context; tiles, overlapping squares at full resolution, from the border inwards;"
    " whole, the picture scaled down; auto, crops, and tiles for long, thin holes"
    " (default: auto)",
  )
  parser.add_argument(
    "--blend",
    choices=inpaint.BLENDS,
    default="poisson",
    help="poisson corrects what was painted until it meets what is known; feather mixes"
    " the two across the border; none does neither (default: poisson)",
  )
  parser.add_argument("--seed", type=int, default=0, help="of networks with noise")
  parser.add_argument(
    "--step", type=int, help="checkpoint to take (default: the best of the run)"
  )
  parser.add_argument(
    "--grid",
    action="store_true",
    help="beside each output write NAME.grid.png: original, hole, completed",
  )


def run(args: argparse.Namespace) -> int:
  """Completes the pictures; returns 1 if it cannot, or if one of them could not be."""
  try:
    color = _color(args)
    jobs = _jobs(args)
    xla.cache_in(Path(args.workdir) / "cache")
    inpainter = inpaint.Inpainter.from_workdir(args.workdir, step=args.step)
  except (OSError, ValueError) as error:
    print(f"ctx-encoder inpaint: {error}", file=sys.stderr)
    return 1
  failed = 0
  bar = tqdm(jobs, unit="picture", disable=len(jobs) == 1)
  for picture, mask, output in bar:
    try:
      _complete(inpainter, picture, mask, output, color, args)
    except (OSError, ValueError) as error:
      failed += 1
      bar.write(f"ctx-encoder inpaint: {picture}: {error}", file=sys.stderr)
  if len(jobs) == 1 and not failed:
    print(jobs[0][2])
  elif len(jobs) > 1:
    print(f"{len(jobs) - failed} of {len(jobs)} pictures are in {args.output}.")
  return int(failed > 0)


def _complete(
  inpainter: inpaint.Inpainter,
  picture: Path,
  mask: Path | None,
  output: Path,
  color: tuple[int, int, int] | None,
  args: argparse.Namespace,
) -> None:
  """Completes one picture and writes it."""
  image = inpaint.read_image(picture)
  hole = inpaint.grown(_hole(image, mask, color, args), args.grow)
  completed = inpainter(
    image, hole, strategy=args.strategy, blend=args.blend, seed=args.seed
  )
  extension = output.suffix.lower()
  encoded = io.BytesIO()
  Image.fromarray(completed).save(
    encoded, Image.registered_extensions()[extension], **_OPTIONS.get(extension, {})
  )
  files.write(output, encoded.getvalue())
  if args.grid:
    shown = np.where(hole[..., None], np.uint8(255), image)
    labels = ("original", "hole", "completed")
    picture_of_all = figures.grid([[image, shown, completed]], column_labels=labels)
    figures.save_png(output.with_name(f"{output.stem}.grid.png"), picture_of_all)


def _hole(
  image: np.ndarray,
  mask: Path | None,
  color: tuple[int, int, int] | None,
  args: argparse.Namespace,
) -> np.ndarray:
  """Returns bool `[H, W]`: what is of the colour, or else what the mask's file says."""
  if color is None:
    if mask is None:
      raise ValueError(f"there is no mask of that name in {args.mask}.")
    try:
      return inpaint.read_mask(mask, inverted=args.mask_polarity == "black")
    except ValueError as error:
      raise ValueError(f"its mask {mask}: {error}") from error
  hole = inpaint.hole_of_color(image, color, tolerance=args.hole_tolerance)
  if not hole.any():
    raise ValueError(
      f"there is no hole of colour {args.hole_color}; a larger --hole-tolerance finds"
      " more."
    )
  return hole


def _color(args: argparse.Namespace) -> tuple[int, int, int] | None:
  """Returns the colour that --hole-color names, RGB in [0, 255]."""
  if (args.mask is None) == (args.hole_color is None):
    raise ValueError("Where is the hole? Give --mask, or --hole-color, one of them.")
  if args.grow < 0:
    raise ValueError(f"--grow must be at least 0, not {args.grow}.")
  if not 0 <= args.hole_tolerance <= 255:
    raise ValueError(
      f"--hole-tolerance must be within [0, 255], not {args.hole_tolerance}."
    )
  if args.hole_color is None:
    return None
  try:
    red, green, blue = ImageColor.getrgb(args.hole_color)[:3]
  except ValueError as error:
    raise ValueError(
      f"--hole-color is white, black or #rrggbb, not {args.hole_color}."
    ) from error
  return red, green, blue


def _jobs(args: argparse.Namespace) -> list[tuple[Path, Path | None, Path]]:
  """Returns (picture, its mask, where its completed one goes) of all pictures.

  Raises:
    FileNotFoundError: there are none, or there is no such mask.
    ValueError: an output would be written over a picture that was given, two into the
      same file, or in an unknown format.
  """
  pictures = list(dict.fromkeys(_pictures(args.image)))
  several = len(pictures) > 1 or any(Path(given).is_dir() for given in args.image)
  output = Path(args.output)
  if several and output.is_file():
    raise ValueError(f"{output} is a file; several pictures need a folder.")
  if several or output.is_dir():
    written = [output / f"{picture.stem}.png" for picture in pictures]
  elif output.suffix.lower() in EXTENSIONS:
    written = [output]
  else:
    raise ValueError(f"--output {output}: its extension is none of {EXTENSIONS}.")
  if len(set(written)) < len(written):
    twice = next(path for path in written if written.count(path) > 1)
    raise ValueError(f"Several pictures would be written to {twice}; rename one.")
  partners = _masks(args.mask, pictures)
  given = {path.resolve() for path in (*pictures, *partners) if path}
  for path in written:
    if path.resolve() in given:
      raise ValueError(f"{path} was given as input; choose another --output.")
  return list(zip(pictures, partners, written, strict=True))


def _pictures(given: list[str]) -> Iterator[Path]:
  for name in given:
    path = Path(name)
    if path.is_dir():
      found = _in_folder(path)
    else:
      found = [path] if path.exists() else sorted(map(Path, glob.glob(name)))
    if not found:
      raise FileNotFoundError(f"There is no picture at {name}.")
    yield from found


def _in_folder(folder: Path) -> list[Path]:
  return sorted(
    path for path in folder.iterdir() if path.suffix.lower() in (*EXTENSIONS, ".gif")
  )


def _masks(given: str | None, pictures: list[Path]) -> list[Path | None]:
  """Returns the mask of each picture; None where there is none of its name."""
  if given is None:
    return [None] * len(pictures)
  path = Path(given)
  if not path.exists():
    raise FileNotFoundError(f"There is no mask at {given}.")
  if not path.is_dir():
    return [path] * len(pictures)
  by_stem = {mask.stem: mask for mask in _in_folder(path)}
  partners = [by_stem.get(picture.stem) for picture in pictures]
  if not any(partners):
    raise FileNotFoundError(
      f"No picture has a mask in {given}: {pictures[0].name} would need"
      f" {pictures[0].stem}.png there, for example."
    )
  return partners
