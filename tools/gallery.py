"""Writes docs/gallery.md with its pictures, of which README shows the second.

    python tools/gallery.py

The package's network and OpenCV's Telea fill the same holes in landscapes that the
network was not trained on. Which, with which holes, follows from the rule that the page
states; nothing is selected. Takes a minute or two on two cores.
"""

import argparse
import io
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from ctx_encoder import masks
from ctx_encoder.data import files, landscapes
from ctx_encoder.evaluation import baselines, figures
from ctx_encoder.inpaint import Inpainter

SIDE = 256
COUNT = 24
PER_PAGE = 4
KINDS = ("random_block", "random_region", "brush", "center")
LABELS = ("hole", "Telea (OpenCV)", "this package", "original")

_PAGE = """# Gallery

{count} fills by the network that comes with the package (`Inpainter.shipped()`), beside
those of OpenCV's Telea, of the same holes. The photographs are the embedded landscapes'
validation set, which the network was not trained on.

Nothing is selected. The rule: the validation photographs in the order of their names,
of each the left square, then of each the right square, until there are {count}, scaled
to {side}x{side} pixels. The holes are in turn random blocks, a random region, brush
strokes and the centre; hole i is drawn by `masks.make_sampler` from
`jax.random.fold_in(jax.random.key(0), i)`. `python tools/gallery.py` makes this page.

Photographs: public domain; authors and sources are in
`ctx_encoder/data/landscapes/NOTICE`.

{pictures}
"""


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  docs = Path(__file__).parents[1] / "docs"
  parser.add_argument(
    "--output", type=Path, default=docs, help="folder (default: docs)"
  )
  output = parser.parse_args().output
  names, rows = fills()
  parts = []
  for first in range(0, COUNT, PER_PAGE):
    last = first + PER_PAGE
    file = f"gallery{first // PER_PAGE + 1}.webp"
    _write(output / file, rows[first:last])
    parts.append(f"![Fills of {', '.join(names[first:last])}]({file})")
  page = _PAGE.format(count=COUNT, side=SIDE, pictures="\n\n".join(parts))
  files.write(output / "gallery.md", page)


def fills() -> tuple[list[str], list[list[np.ndarray]]]:
  """Returns names, and rows of hole, Telea, ours, original."""
  squares = [
    (name, picture[:, start : start + picture.shape[0]])
    for right in (False, True)
    for name in landscapes.split()[1]
    for picture in [landscapes.read(name)]
    for start in [right * (picture.shape[1] - picture.shape[0])]
  ][:COUNT]
  size = (SIDE, SIDE)
  pictures = [
    np.asarray(Image.fromarray(square).resize(size, Image.Resampling.LANCZOS))
    for _, square in squares
  ]
  samplers = [masks.make_sampler(kind, SIDE) for kind in KINDS]
  key = jax.random.key(0)
  holes = [
    np.asarray(samplers[i % len(KINDS)](jax.random.fold_in(key, i)))[..., 0] > 0
    for i in range(COUNT)
  ]
  ours = Inpainter.shipped()(pictures, holes)
  telea = baselines.named(["telea"])[0].complete
  return [name for name, _ in squares], [
    [np.where(hole[..., None], np.uint8(255), image), telea(image, hole), filled, image]
    for image, hole, filled in zip(pictures, holes, ours, strict=True)
  ]


def _write(path: Path, rows: list[list[np.ndarray]]) -> None:
  file = io.BytesIO()
  image = Image.fromarray(figures.grid(rows, column_labels=LABELS))
  image.save(file, "WEBP", quality=82, method=6)
  files.write(path, file.getvalue())


if __name__ == "__main__":
  main()
