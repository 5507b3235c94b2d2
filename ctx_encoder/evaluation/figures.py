"""Pictures of images and of a run: labelled grids, and curves of losses and PSNR."""

import functools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

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
  shapes = {np.shape(image) for row in rows for image in row}
  if len(shapes) != 1 or len(shape := next(iter(shapes))) != 3 or shape[2] != 3:
    raise ValueError(f"A grid takes images of one shape [H, W, 3], not {list(shapes)}.")
  columns = max(len(row) for row in rows)
  _check_count("column_labels", column_labels, columns)
  _check_count("row_labels", row_labels, len(rows))
  _check_count("captions", captions, len(rows))
  height, width = scale * shape[0], scale * shape[1]
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
        draw.text(
          (x + width / 2, y + height + 1), captions[row][column], INK, font, "ma"
        )
  return np.asarray(canvas)


def save_png(path: str | os.PathLike, image: np.ndarray) -> None:
  """Writes uint8 `[H, W, 3]`; a file of that name is replaced in one move."""
  picture = Image.fromarray(np.asarray(image, np.uint8))
  files.write(path, lambda new: picture.save(new, "PNG"))


def curves(
  path: str | os.PathLike,
  history: Sequence[Mapping[str, Any]],
  *,
  references: Mapping[str, float] | None = None,
  title: str = "",
) -> None:
  """Draws losses and PSNR over the epochs of a run into one PNG.

  Three panels: reconstruction loss of training and validation; adversarial and
  discriminator loss; PSNR of training and validation with the best validation marked.
  A value is drawn where a line has it; values that are not finite leave a gap.

  Args:
    path: file to write; replaced in one move.
    history: one mapping per logged step, with "step", "epoch", and any of
      "loss/reconstruction", "loss/adversarial", "loss/discriminator", "psnr_hole",
      "eval/loss/reconstruction", "eval/psnr_hole".
    references: {name: PSNR in dB} of baselines, drawn as horizontal lines.
    title: title of the figure.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  from matplotlib.ticker import LogLocator

  figure = Figure(figsize=(15, 4.5), dpi=100, layout="constrained")
  canvas = FigureCanvasAgg(figure)
  losses, adversarial, psnr = figure.subplots(1, 3)
  if title:
    figure.suptitle(title)

  drawn = functools.partial(_draw_series, history=history)
  drawn(losses, "loss/reconstruction", "training", color="C0", linewidth=1)
  drawn(losses, "eval/loss/reconstruction", "validation", color="C1", marker="o")
  _dress(losses, "Reconstruction loss", "loss")
  # A loss falls by orders of magnitude in the first epochs.
  if any(_series(history, name)[1].size for name in _RECONSTRUCTION):
    losses.set_yscale("log")
    losses.yaxis.set_major_formatter("{x:g}")
    losses.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    losses.yaxis.set_minor_formatter("{x:g}")

  drawn(adversarial, "loss/adversarial", "generator", color="C2", linewidth=1)
  drawn(adversarial, "loss/discriminator", "discriminator", color="C3", linewidth=1)
  _dress(adversarial, "Adversarial losses, training", "loss")

  drawn(psnr, "psnr_hole", "training", color="C0", linewidth=1)
  drawn(psnr, "eval/psnr_hole", "validation", color="C1", marker="o")
  epochs, values = _series(history, "eval/psnr_hole")
  if np.isfinite(values).any():
    best = np.nanargmax(values)
    label = f"best: {values[best]:.2f} dB, epoch {epochs[best]:g}"
    psnr.plot(epochs[best], values[best], "k*", markersize=14, label=label)
  for number, (name, value) in enumerate((references or {}).items()):
    style = ("--", ":", "-.")[number % 3]
    psnr.axhline(value, color="0.35", linestyle=style, label=f"{name}: {value:.2f} dB")
  _dress(psnr, "PSNR of the hole", "dB", legend="lower right")

  files.write(path, lambda new: canvas.print_figure(new, format="png"))


_RECONSTRUCTION = ("loss/reconstruction", "eval/loss/reconstruction")


def _series(
  history: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns epochs and values of the lines that have the name; not finite = NaN."""
  points = [(line["epoch"], line[name]) for line in history if name in line]
  epochs, values = np.array(points, np.float64).reshape(-1, 2).T
  return epochs, np.where(np.isfinite(values), values, np.nan)


def _draw_series(axes, name, label, *, history, marker=None, **style) -> None:
  epochs, values = _series(history, name)
  if epochs.size:
    # A single point has no line to be seen by.
    marker = marker or ("o" if epochs.size == 1 else None)
    axes.plot(epochs, values, label=label, marker=marker, markersize=4, **style)


def _dress(axes, title: str, unit: str, legend: str = "upper right") -> None:
  axes.set(title=title, xlabel="epoch", ylabel=unit)
  axes.grid(alpha=0.3)
  if axes.get_legend_handles_labels()[0]:
    axes.legend(fontsize=9, loc=legend)
  else:
    axes.text(0.5, 0.5, "nothing logged", transform=axes.transAxes, ha="center")


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
  font = ImageFont.load_default(size)
  if not isinstance(font, ImageFont.FreeTypeFont):
    raise ImportError("Labels need a Pillow with FreeType; pip install pillow has it.")
  return font


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
  """Returns the text in lines not wider than `width`, where its words allow that."""
  lines = [""]
  for word in text.split():
    longer = f"{lines[-1]} {word}".strip()
    if not lines[-1] or font.getlength(longer) <= width:
      lines[-1] = longer
    else:
      lines.append(word)
  return lines


def _check_count(name: str, labels: Sequence, count: int) -> None:
  if labels and len(labels) != count:
    raise ValueError(f"A grid needs {count} {name} or none, not {len(labels)}.")
