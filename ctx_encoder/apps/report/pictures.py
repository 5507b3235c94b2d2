"""The pictures of a page: completed ones, the best and the worst, the holes."""

from collections.abc import Sequence

import numpy as np

from ctx_encoder.apps.report import markup
from ctx_encoder.apps.report.markup import Html, tag
from ctx_encoder.apps.report.records import Case, Report, Run

KINDS = {
  "center": "A square in the middle, half as wide as the picture.",
  "random_block": "Up to four rectangles, at most a quarter of the picture together.",
  "random_region": "Irregular regions, a quarter of the picture together.",
  "brush": "Strokes of a brush.",
  "combined": "One of center, random_block and random_region, drawn by lot.",
}


def completed(report: Report) -> list[Html]:
  """Returns the same pictures, completed by every system that is shown."""
  content = [
    tag(
      "p",
      "Each row is one picture: the original, the same with a hole, and what was"
      " painted into it. Whoever paints knows nothing of the coloured part. The figure"
      " is the PSNR inside the hole; more is closer to the original. The pictures were"
      " drawn by lot, not chosen, and are the same for each kind of hole.",
    )
  ]
  for kind in report.kinds:
    content += [tag("h3", kind.name), tag("p", KINDS.get(kind.name, ""))]
    rows = [row(case, report.shown, report.side) for case in kind.cases]
    content.append(in_columns(rows, 2 + len(report.shown)))
  return content


def extremes(report: Report, run: Run, heading: str) -> list[Html]:
  """Returns the pictures whose originals a run came closest to, and furthest from."""
  content = [
    tag(
      "p",
      f"Of all pictures, those where {run.name} has the highest and the lowest PSNR"
      " inside the hole, with the figures of the baselines on the same hole: smooth"
      " places are easy for everyone, and busy ones hard.",
    )
  ]
  for kind in report.kinds:
    content.append(tag(heading, kind.name))
    for what, cases in zip(("best", "worst"), kind.extremes[run.name], strict=True):
      rows = [row(case, [run.name], report.side, report.baselines) for case in cases]
      content += [
        tag("p", tag("b", what.capitalize())),
        in_columns(rows, tiles=4),
      ]
  return content


def holes(report: Report) -> list[Html]:
  """Returns some holes of each kind."""
  content = [
    tag(
      "p",
      "Some of the holes that were measured on. White is the hole; the figure is its"
      " share of the picture.",
    )
  ]
  for kind in report.kinds:
    content += [tag("h3", kind.name), tag("p", KINDS.get(kind.name, ""))]
    tiles = []
    for number, hole in enumerate(kind.holes, 1):
      share = f"{100 * hole.mean():.0f} %"
      gray = np.uint8(255) * hole.astype(np.uint8)
      alt = f"hole {number} of kind {kind.name}, {share} of the picture"
      tiles.append(tile(gray, report.side, alt, share))
    content.append(in_a_row(tiles))
  return content


def row(
  case: Case, systems: Sequence[str], side: int, beside: Sequence[str] = ()
) -> Html:
  """Returns a picture, its hole, and what systems made of it.

  Args:
    case: what was made.
    systems: whose pictures are shown.
    side: pixels they are shown with at most.
    beside: whose figures are given without a picture.
  """
  tiles = [
    tile(case.original, side, f"{case.name}, original", "original"),
    tile(
      case.masked,
      side,
      f"{case.name} with the hole",
      f"hole, {100 * case.hole.mean():.0f} %",
    ),
  ]
  for name in systems:
    value = f"{case.psnr[name]:.1f} dB"
    alt = f"{case.name}, completed by {name}, {value}"
    others = (f"{other} {case.psnr[other]:.1f} dB" for other in beside)
    tiles.append(tile(case.completed[name], side, alt, name, value, *others))
  return tag("div", tag("small", case.name), in_a_row(tiles))


def tile(pixels: np.ndarray, side: int, alt: str, *lines: str) -> Html:
  """Returns a picture with lines of text below it."""
  text = [part for line in lines for part in (line, Html("<br>"))][:-1]
  picture = markup.image(markup.png(pixels, side), alt)
  return tag("figure", picture, tag("figcaption", *text))


def in_columns(rows: Sequence[Html], tiles: int) -> Html:
  """Returns rows of so many tiles, beside each other where the screen is wide."""
  return tag("div", *rows, class_="cases", style=f"--wide: {7 * tiles}rem")


def in_a_row(tiles: Sequence[Html]) -> Html:
  return tag("div", *tiles, class_="case", style=f"max-width: {9 * len(tiles)}rem")
