"""Grids of images with labels, and curves of a run's losses and PSNR."""

import functools
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ctx_encoder.data import files

BACKGROUND = (255, 255, 255)
INK = (0, 0, 0)


def grid(
  rows: Sequence[Sequence[np.ndarray]],
  *,
  column_labels: Sequence[str] = (),
  row_labels: Sequence[str] = (),
  captions: Sequence[Sequence[str]] = (),
  scale: int = 1,
  pad: int = 4,
) -> np.ndarray:
  """Returns images of one size side by side on white, with labels.

  Args:
    rows: rows of images, uint8 `[H, W, 3]`, all of one shape; a row may be shorter.
    column_labels: one above each column, or none.
    row_labels: one to the left of each row, or none.
    captions: like `rows`, a line under each image, or none.
    scale: every pixel becomes scale x scale pixels.
    pad: pixels between images and around them.
  Returns:
    uint8 `[H', W', 3]`.
  Raises:
    ValueError: there are no images, their shapes differ, or labels are not as many as
      rows or columns.
  """
  height, width = (scale * side for side in _one_size(rows))
  columns = max(len(row) for row in rows)
  _check_count("column_labels", column_labels, columns)
  _check_count("row_labels", row_labels, len(rows))
  _check_count("captions", captions, len(rows))
  font = _font(min(24, max(11, width // 9)))
  line = math.ceil(1.3 * font.size)
  heads = [_wrap(label, font, width) for label in column_labels]
  texts = [text for row in (*heads, *captions) for text in row]
  # A column is as wide as its images, or as the longest text that cannot be wrapped.
  pitch_x = pad + max([width, *(math.ceil(font.getlength(text)) for text in texts)])
  pitch_y = pad + height + (line if captions else 0)
  top = pad + line * max((len(lines) for lines in heads), default=0)
  left = pad
  if row_labels:
    left += 2 * pad + math.ceil(max(font.getlength(label) for label in row_labels))
  size = (left + columns * pitch_x, top + len(rows) * pitch_y)
  canvas = Image.new("RGB", size, BACKGROUND)
  draw = ImageDraw.Draw(canvas)
  for column, lines in enumerate(heads):
    for number, text in enumerate(reversed(lines)):
      x, y = left + (column + 0.5) * pitch_x - pad / 2, top - 2 - number * line
      draw.text((x, y), text, INK, font, "md")
  for row, images in enumerate(rows):
    y = top + row * pitch_y
    if row_labels:
      draw.text((left - 2 * pad, y + height / 2), row_labels[row], INK, font, "rm")
    for column, image in enumerate(images):
      x = left + column * pitch_x + (pitch_x - pad - width) // 2
      tile = Image.fromarray(np.asarray(image, np.uint8))
      canvas.paste(tile.resize((width, height), Image.Resampling.NEAREST), (x, y))
      if captions:
        place = (x + width / 2, y + height + 1)
        draw.text(place, captions[row][column], INK, font, "ma")
  return np.asarray(canvas)


def save_png(path: str | os.PathLike, image: np.ndarray) -> None:
  """Writes uint8 `[H, W, 3]` as a PNG; an existing file is replaced in one move."""
  files.write(Path(path), png(image))


def png(image: np.ndarray) -> bytes:
  """Returns a PNG of uint8 `[H, W, 3]` or `[H, W]`."""
  file = io.BytesIO()
  Image.fromarray(np.asarray(image, np.uint8)).save(file, "PNG", optimize=True)
  return file.getvalue()


class Panel(NamedTuple):
  """A chart of a run's measurements over its epochs.

  Attributes:
    axis: label of the vertical axis; "logarithmic" makes it so.
    factor: multiplies values.
    series: {label: name in metrics.jsonl}.
  """

  axis: str
  factor: float
  series: dict[str, str]


PANELS = {
  "Reconstruction loss": Panel(
    "loss, logarithmic",
    1,
    {"training": "loss/reconstruction", "validation": "eval/loss/reconstruction"},
  ),
  "Adversarial losses, training": Panel(
    "loss", 1, {"generator": "loss/adversarial", "discriminator": "loss/discriminator"}
  ),
  "PSNR of the hole": Panel(
    "PSNR (dB)", 1, {"training": "psnr_hole", "validation": "eval/psnr_hole"}
  ),
  "L1 of the hole": Panel("L1 (%)", 100, {"validation": "eval/l1_hole"}),
}
# Told apart by colour-blind readers too (Okabe and Ito, Color Universal Design).
_COLORS = {
  "training": "#0072B2",
  "validation": "#D55E00",
  "generator": "#009E73",
  "discriminator": "#CC79A7",
}
_SMOOTHED = 40  # series with more points get a moving average over a twentieth of them


def curves(
  path: str | os.PathLike,
  history: Sequence[Mapping[str, Any]],
  *,
  references: Mapping[str, float] | None = None,
  title: str = "",
) -> None:
  """Draws the losses and the PSNR of a run over its epochs into one PNG.

  Three panels: reconstruction loss of training and validation; adversarial and
  discriminator loss; PSNR of training and validation. Values that are not finite leave
  a gap.

  Args:
    path: file to write; an existing one is replaced in one move.
    history: one mapping per logged step, with "step", "epoch", and any of the names in
      `PANELS`.
    references: {name: PSNR in dB} of baselines, drawn as horizontal lines.
    title: title of the figure.
  """
  figure = new_figure(15, 5)
  if title:
    figure.suptitle(plain(title))
  titles = [name for name in PANELS if name != "L1 of the hole"]
  for axes, name in zip(figure.subplots(1, 3), titles, strict=True):
    lines = references if name == "PSNR of the hole" else None
    draw_panel(axes, name, history, references=lines)
  files.write(Path(path), figure_png(figure))


def draw_panel(
  axes: Any,
  title: str,
  history: Sequence[Mapping[str, Any]],
  *,
  references: Mapping[str, float] | None = None,
) -> bool:
  """Draws one of `PANELS`; returns whether there was anything to draw.

  Noisy series are pale, with their moving average over them. The validation with the
  highest PSNR is marked.

  Args:
    axes: of matplotlib.
    title: key of `PANELS`.
    history, references: as for `curves`.
  """
  label, factor, series = PANELS[title]
  found = {what: _series(history, name) for what, name in series.items()}
  drawn = any(np.isfinite(values).any() for _, values in found.values())
  for what, (epochs, values) in found.items():
    if epochs.size:
      _draw_series(axes, what, epochs, factor * values)
  best, highest = best_validation(history)
  if best is not None and title == "PSNR of the hole":
    label_best = f"best: {highest:.2f} dB, epoch {best:.3g}"
    axes.plot(best, highest, "k*", markersize=13, label=label_best, zorder=4)
  elif best is not None and drawn:
    axes.axvline(best, color="0.2", linestyle=":", label=f"best epoch, {best:.3g}")
  for number, (name, value) in enumerate((references or {}).items()):
    style = ("--", ":", "-.")[number % 3]
    text = f"{plain(name)}: {value:.2f} dB"
    axes.axhline(value, color="0.35", linestyle=style, label=text)
  axes.set(title=title, xlabel="epoch", ylabel=label)
  axes.grid(alpha=0.3)
  # A loss falls by orders of magnitude in the first epochs.
  if "logarithmic" in label and any(epochs.size for epochs, _ in found.values()):
    _logarithmic(axes)
  if axes.get_legend_handles_labels()[0]:
    # Below the chart, where it hides no curve.
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
  else:
    axes.text(0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center")
  return drawn


def best_validation(
  history: Sequence[Mapping[str, Any]],
) -> tuple[float | None, float]:
  """Returns epoch and value of the highest validation PSNR; (None, nan) without."""
  epochs, values = _series(history, "eval/psnr_hole")
  if not np.isfinite(values).any():
    return None, math.nan
  best = np.nanargmax(values)
  return float(epochs[best]), float(values[best])


def new_figure(width: float, height: float, dpi: int = 100) -> Any:
  """Returns a figure of matplotlib outside its global state; sizes in inches."""
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def figure_png(figure: Any) -> bytes:
  """Returns a figure of matplotlib as a PNG."""
  file = io.BytesIO()
  figure.savefig(file, format="png")
  return file.getvalue()


def plain(text: str) -> str:
  """Keeps matplotlib from reading a name as a formula, or leaving it out."""
  return text.replace("$", r"\$").lstrip("_")


def _series(
  history: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns epochs and values of the lines that have the name; not finite = NaN."""
  points = [(x["epoch"], x[name]) for x in history if {name, "epoch"} <= x.keys()]
  epochs, values = np.array(points, np.float64).reshape(-1, 2).T
  return epochs, np.where(np.isfinite(values), values, np.nan)


def _draw_series(axes: Any, what: str, epochs: np.ndarray, values: np.ndarray) -> None:
  color, style = _COLORS[what], {"linewidth": 1}
  if what == "validation" or epochs.size == 1:  # few points, one of them has no line
    style = {"linewidth": 2, "marker": "o", "markersize": 4}
  if epochs.size <= _SMOOTHED:
    axes.plot(epochs, values, color=color, label=what, **style)
    return
  axes.plot(epochs, values, color=color, alpha=0.3, **style)
  width = epochs.size // 20
  windows = np.lib.stride_tricks.sliding_window_view
  middle = windows(epochs, width).mean(axis=1)
  smooth = windows(values, width).mean(axis=1)
  axes.plot(middle, smooth, color=color, linewidth=2, label=f"{what}, moving average")


def _logarithmic(axes: Any) -> None:
  from matplotlib.ticker import LogLocator

  axes.set_yscale("log")
  axes.yaxis.set_major_formatter("{x:g}")
  axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
  axes.yaxis.set_minor_formatter("{x:g}")


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
  font = ImageFont.load_default(size)
  if not isinstance(font, ImageFont.FreeTypeFont):
    raise ImportError("Labels need a Pillow with FreeType; pip install pillow has it.")
  return font


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
  """Returns lines at most `width` wide; a longer word is a line of its own."""
  lines = [""]
  for word in text.split():
    longer = f"{lines[-1]} {word}".strip()
    if not lines[-1] or font.getlength(longer) <= width:
      lines[-1] = longer
    else:
      lines.append(word)
  return lines


def _one_size(rows: Sequence[Sequence[np.ndarray]]) -> tuple[int, int]:
  """Returns height and width of all images; raises ValueError where they differ."""
  shapes = {np.shape(image) for row in rows for image in row}
  if len(shapes) != 1 or len(shape := next(iter(shapes))) != 3 or shape[2] != 3:
    raise ValueError(f"A grid takes images of one shape [H, W, 3], not {list(shapes)}.")
  return shape[:2]


def _check_count(name: str, labels: Sequence, count: int) -> None:
  if labels and len(labels) != count:
    raise ValueError(f"A grid needs {count} {name} or none, not {len(labels)}.")
