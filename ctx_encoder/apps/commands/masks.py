"""Draws a gallery of the kinds of holes, with the area of each hole.

Each kind is a row, drawn over embedded photographs:

    ctx-encoder masks --output masks.png --size 128 --count 8
    ctx-encoder masks --output shapes.png --kinds shapes brush --shapes silhouettes
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import masks
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.data import decode, landscapes, silhouettes
from ctx_encoder.data.paths import printable
from ctx_encoder.evaluation import figures

KINDS = ("center", "random_block", "random_region", "shapes", "brush", "combined")
PHOTOGRAPHS = ("mountain1", "city8")


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  parser.add_argument("--output", required=True, help="PNG file to write")
  parser.number("--size", 128, "side of the masks, in pixels", 16, 1024)
  parser.number("--count", 8, "masks of each kind", 1, 64)
  parser.add_argument(
    "--kinds",
    nargs="+",
    choices=KINDS,
    metavar="KIND",
    help=f"rows to draw, from: {', '.join(KINDS)}. shapes is random_region with the"
    " silhouettes of --shapes (default: all; shapes only with --shapes)",
  )
  parser.number("--seed", 0, "seed of the masks")
  parser.add_argument(
    "--shapes", default="", help="folder of mask images: brighter than half = hole"
  )
  parser.add_argument(
    "--inverted", action="store_true", help="in the mask images, dark = hole"
  )
  parser.add_argument(
    "--fill",
    default="#ff00c8",
    help="what the holes are filled with: black, white, #rrggbb, or smooth"
    " (interpolated from the border)",
  )


def run(args: argparse.Namespace) -> int:
  """Writes the gallery; raises the errors of `gallery`."""
  if not args.output.lower().endswith(".png"):
    raise ValueError(f"--output must name a .png file, not {args.output}.")
  image = gallery(args)
  figures.save_png(args.output, image)
  print(f"{printable(args.output)}  {image.shape[1]}x{image.shape[0]}")
  return 0


def gallery(args: argparse.Namespace) -> np.ndarray:
  """Returns the gallery that the arguments describe, uint8 `[H, W, 3]`.

  Raises:
    FileNotFoundError: the folder of --shapes does not exist.
    ValueError: the colour is wrong, or --shapes is missing.
  """
  kinds = args.kinds or [kind for kind in KINDS if kind != "shapes" or args.shapes]
  if "shapes" in kinds and not args.shapes:
    raise ValueError("The kind shapes needs --shapes, a folder of mask images.")
  fill = masks.parse_fill(args.fill, mean=(127.5, 127.5, 127.5))
  shapes = None
  if "shapes" in kinds:
    shapes = silhouettes.load_silhouettes(args.shapes, args.size, args.inverted)
  photographs = jnp.asarray(_photographs(args.size, args.count), jnp.float32) / 255
  rows, areas = [], []
  for kind in kinds:
    sample = _sampler(kind, args.size, shapes)
    drawn = jax.jit(masks.for_examples, static_argnums=0)(
      sample, jax.random.key(args.seed), jnp.arange(args.count)
    )
    images = masks.masked_image(photographs, drawn, fill)
    rows.append(np.rint(255 * np.asarray(images)).astype(np.uint8))
    areas.append([f"{area:.1%}" for area in np.asarray(drawn).mean((1, 2, 3))])
  return figures.grid(rows, row_labels=kinds, captions=areas)


def _sampler(kind: str, size: int, shapes: np.ndarray | None) -> masks.Sampler:
  if kind == "shapes":
    return masks.make_sampler("random_region", size, region="shapes", shapes=shapes)
  # With silhouettes, the kind combined uses them too.
  region = "shapes" if kind == "combined" and shapes is not None else "noise"
  return masks.make_sampler(kind, size, region=region, shapes=shapes)


def _photographs(size: int, count: int) -> np.ndarray:
  """Returns uint8 `[count, size, size, 3]`: photographs alternating."""
  images = [decode.decode(landscapes.encoded(name), size) for name in PHOTOGRAPHS]
  return np.stack([images[number % len(images)] for number in range(count)])
