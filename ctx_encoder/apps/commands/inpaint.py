"""Fills holes in pictures of any size with a trained network.

The mask is a picture of the same size in which bright pixels are the hole. If parts of
it are transparent, they define the hole: the paint on a transparent layer, or what was
erased from an opaque one. Instead, the hole may be painted into the picture itself in
one colour:

    ctx-encoder inpaint --image photo.jpg --mask mask.png \\
        --output completed.png
    ctx-encoder inpaint --workdir runs/quickstart --image photo.png \\
        --hole-color white --output completed.png --grid

In folders, a picture and its mask have the same name; the extensions may differ. A
single mask file is used for all pictures. If a picture cannot be completed, the reason
is printed, the other pictures are completed, and the exit code is 1:

    ctx-encoder inpaint --workdir runs/quickstart --image photos --mask masks \\
        --output completed
    ctx-encoder inpaint --workdir runs/quickstart --image 'photos/*.jpg' \\
        --hole-color '#ff00ff' --grow 2 --output completed
"""

import argparse
import glob
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ImageColor
from tqdm import tqdm

from ctx_encoder import inpaint, xla
from ctx_encoder.data import files
from ctx_encoder.data.decode import EXTENSIONS, to_rgb, upright
from ctx_encoder.data.paths import printable
from ctx_encoder.evaluation import figures
from ctx_encoder.inpaint import formats, shipped

_PATIENCE = 2.0  # seconds without a word about progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  add = parser.add_argument
  add(
    "--workdir",
    help="folder of a run, as written by launch.py (default: the package's own,"
    " trained on landscapes)",
  )
  add(
    "--image",
    nargs="+",
    required=True,
    metavar="IN",
    help="pictures, folders of pictures, or patterns such as 'photos/*.jpg'",
  )
  add(
    "--output",
    required=True,
    help="for one picture the file to write, in the format of its extension (.png"
    " preserves known pixels exactly, .jpg does not; bit depth, transparency, colour"
    " profile and EXIF data are kept where it can contain them); for several pictures a"
    " folder, which receives a PNG file of the same name for each",
  )
  _add_hole_arguments(parser)
  add(
    "--strategy",
    choices=inpaint.STRATEGIES,
    default="auto",
    help="crops: a square around each hole, with as much context as hole, is scaled to"
    " the network's size; texture: the same, with detail from other parts of the"
    " picture; tiles: overlapping squares at full resolution, from the border of the"
    " hole inwards; whole: the whole picture, scaled down; auto: tiles for long, thin"
    " holes, texture for other large ones, else crops (default: auto)",
  )
  add(
    "--blend",
    choices=inpaint.BLENDS,
    default="poisson",
    help="poisson: shift the colours of the filled hole to match its surroundings;"
    " feather: mix the two across the border; none: keep the network's output"
    " (default: poisson)",
  )
  add("--seed", type=int, default=0, help="for networks with noise (default: 0)")
  add("--step", type=int, help="checkpoint to load (default: the best of the run)")
  add(
    "--grid",
    action="store_true",
    help="also write NAME.grid.png beside each output: original, hole, completed",
  )


def _add_hole_arguments(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add(
    "--mask", help="mask picture; for a folder of pictures, the folder of their masks"
  )
  add(
    "--mask-polarity",
    choices=("white", "black"),
    default="white",
    help="colour of the hole in the mask; black inverts masks with transparency too"
    " (default: white)",
  )
  add(
    "--hole-color",
    metavar="COLOR",
    help="instead of --mask: colour of the hole in the picture: white, black, #rrggbb"
    " or another CSS colour name",
  )
  add(
    "--hole-tolerance",
    type=int,
    default=16,
    help="largest difference from --hole-color in each channel, 0 to 255; four times"
    " that in pictures with lossy compression, such as JPEG (default: 16)",
  )
  add(
    "--grow",
    type=int,
    default=0,
    metavar="PIXELS",
    help="enlarge holes on all sides, for example by 2 to remove the soft rim of a"
    " brush (default: 0)",
  )


def run(args: argparse.Namespace) -> int:
  """Completes the pictures; returns 1 if one of them could not be completed.

  Raises:
    ValueError, OSError: the arguments are wrong, or the network cannot be loaded.
  """
  color = _color(args)
  jobs = _jobs(args)
  if args.workdir:
    xla.cache_in(Path(args.workdir) / "cache")
    inpainter = inpaint.Inpainter.from_workdir(args.workdir, step=args.step)
  elif args.step is not None:
    raise ValueError("--step names a checkpoint of a run: it needs --workdir.")
  else:
    shipped.keep_compiled()
    inpainter = inpaint.Inpainter.shipped()
  failed = 0
  bar = tqdm(jobs, unit="picture", disable=len(jobs) == 1)
  for picture, mask, output in bar:
    try:
      for note in _complete(
        inpainter, picture, mask, output, color, args, several=len(jobs) > 1
      ):
        note = printable(f"{picture}: {note}")
        bar.write(f"ctx-encoder inpaint: {note}", file=sys.stderr)
    except (OSError, ValueError) as error:
      failed += 1
      problem = printable(f"{picture}: {error}")
      bar.write(f"ctx-encoder inpaint: {problem}", file=sys.stderr)
  if len(jobs) == 1 and not failed:
    print(printable(str(jobs[0][2])))
  elif len(jobs) > 1:
    print(
      f"{len(jobs) - failed} of {len(jobs)} pictures are in {printable(args.output)}."
    )
  return int(failed > 0)


def _complete(
  inpainter: inpaint.Inpainter,
  picture: Path,
  mask: Path | None,
  output: Path,
  color: tuple[int, int, int] | None,
  args: argparse.Namespace,
  *,
  several: bool,
) -> list[str]:
  """Completes one picture and writes it; returns notes about what was lost."""
  data = picture.read_bytes()
  original = upright(data)
  image = np.array(to_rgb(original))
  lossy = color is not None and inpaint.is_lossy(data)
  hole = inpaint.grown(_hole(image, mask, color, args, lossy), args.grow)
  options = {"strategy": args.strategy, "blend": args.blend, "seed": args.seed}
  with tqdm(
    total=1.0, delay=_PATIENCE, disable=several, bar_format="{percentage:3.0f} % filled"
  ) as bar:
    completed = inpainter(
      image, hole, progress=lambda share: bar.update(share - bar.n), **options
    )
  extension = output.suffix.lower()
  encoded, lost = formats.encode_like(data, original, completed, extension, hole)
  files.write(output, encoded)
  if args.grid:
    masked = np.where(hole[..., None], np.uint8(255), image)
    labels = ("original", "hole", "completed")
    grid = figures.grid([[image, masked, completed]], column_labels=labels)
    figures.save_png(output.with_name(f"{output.stem}.grid.png"), grid)
  notes = []
  if lossy:
    notes.append(
      "lossy compression mixes paint with its surroundings, so the hole was enlarged;"
      " paint on a PNG copy, or use a --mask."
    )
  if lost:
    notes.append(f"{output} does not have the picture's {', '.join(lost)}.")
  return notes


def _hole(
  image: np.ndarray,
  mask: Path | None,
  color: tuple[int, int, int] | None,
  args: argparse.Namespace,
  lossy: bool,
) -> np.ndarray:
  """Returns the hole, bool `[H, W]`, from the mask file or the colour."""
  if color is None:
    if mask is None:
      raise ValueError(f"there is no mask of that name in {args.mask}.")
    try:
      return inpaint.read_mask(mask, inverted=args.mask_polarity == "black")
    except ValueError as error:
      raise ValueError(f"its mask {mask}: {error}") from error
  hole = inpaint.hole_of_color(image, color, tolerance=args.hole_tolerance, lossy=lossy)
  if not hole.any():
    raise ValueError(
      f"there is no hole of colour {args.hole_color}; a larger --hole-tolerance finds"
      " more."
    )
  return hole


def _color(args: argparse.Namespace) -> tuple[int, int, int] | None:
  """Checks the arguments about the hole; returns --hole-color as RGB in [0, 255]."""
  if (args.mask is None) == (args.hole_color is None):
    raise ValueError("Where is the hole? Give either --mask or --hole-color.")
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
  """Returns (picture, its mask, output file) for each picture.

  Raises:
    FileNotFoundError: there are no pictures, or no masks.
    ValueError: an output would overwrite an input or another output, or its format is
      unknown.
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
    raise ValueError(
      f"--output {output}: its extension must be one of {' '.join(EXTENSIONS)}."
    )
  if len(set(written)) < len(written):
    twice = next(path for path in written if written.count(path) > 1)
    raise ValueError(f"Several pictures would be written to {twice}; rename one.")
  partners = _masks(args.mask, pictures)
  inputs = {path.resolve() for path in (*pictures, *partners) if path}
  for path in written:
    if path.resolve() in inputs:
      raise ValueError(f"{path} is one of the inputs; choose another --output.")
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
  """Returns the mask of each picture; None where no mask has its name."""
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
      f"No picture has a mask in {given}: for {pictures[0].name} it would be called"
      f" {pictures[0].stem}.png, for example."
    )
  return partners
