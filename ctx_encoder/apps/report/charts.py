"""Curves and a histogram, a PNG each: on a phone they stand below each other.

`figures.curves` draws them side by side, for the work directory.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Title: the axis, the factor of its values, and {what: name in metrics.jsonl}.
_PANELS = {
  "Reconstruction loss": (
    "loss, logarithmic",
    1,
    {"training": "loss/reconstruction", "validation": "eval/loss/reconstruction"},
  ),
  "PSNR of the hole": (
    "PSNR (dB)",
    1,
    {"training": "psnr_hole", "validation": "eval/psnr_hole"},
  ),
  "L1 of the hole": ("L1 (%)", 100, {"validation": "eval/l1_hole"}),
  "Adversarial losses, training": (
    "loss",
    1,
    {"generator": "loss/adversarial", "discriminator": "loss/discriminator"},
  ),
}
_COLORS = {
  "training": "C0",
  "validation": "C1",
  "generator": "C2",
  "discriminator": "C3",
}


def curves(history: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
  """Returns {title: PNG} of what a run has logged over its epochs.

  Args:
    history: as for `figures.curves`; the epoch with the highest "eval/psnr_hole" is
      marked in each.
  """
  from matplotlib.ticker import LogLocator

  best = best_epoch(history)
  made = {}
  for title, (label, factor, names) in _PANELS.items():
    series = {what: _series(history, name) for what, name in names.items()}
    if not any(np.isfinite(values).any() for _, values in series.values()):
      continue
    figure, axes = _axes(title, "epoch", label)
    for what, (epochs, values) in series.items():
      # Validations are few and certain, steps of training many and noisy.
      few = what == "validation" or len(values) == 1
      style = (
        {"linewidth": 2, "marker": "o", "markersize": 4} if few else {"linewidth": 1}
      )
      axes.plot(epochs, factor * values, color=_COLORS[what], label=what, **style)
    if "logarithmic" in label:
      axes.set_yscale("log")
      axes.yaxis.set_major_formatter("{x:g}")
      axes.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
      axes.yaxis.set_minor_formatter("{x:g}")
    if best is not None:
      axes.axvline(best, color="0.2", linestyle=":", label=f"best epoch, {best:.3g}")
    made[title] = _png(figure, axes)
  return made


def histogram(distances: Mapping[str, np.ndarray]) -> bytes:
  """Returns a PNG of distributions, {name: `[N]`}, over each other; b"" of none."""
  if not distances:
    return b""
  title = "Distance to the nearest training patch"
  figure, axes = _axes(title, "distance (levels of 255)", "holes")
  top = max(float(values.max()) for values in distances.values())
  edges = np.linspace(0, max(top, 1.0), 17)
  for number, (name, values) in enumerate(distances.items()):
    line = ("-", "--", ":", "-.")[number % 4]
    counts, _ = np.histogram(values, edges)
    axes.stairs(counts, edges, label=_plain(name), linewidth=2, linestyle=line)
  return _png(figure, axes)


def best_epoch(history: Sequence[Mapping[str, Any]]) -> float | None:
  """Returns the epoch with the highest validation PSNR; None without validation."""
  epochs, values = _series(history, "eval/psnr_hole")
  if not np.isfinite(values).any():
    return None
  return float(epochs[np.nanargmax(values)])


def _series(
  history: Sequence[Mapping[str, Any]], name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns epochs and values of the lines that have the name; not finite = NaN."""
  points = [(line["epoch"], line[name]) for line in history if name in line]
  epochs, values = np.array(points, np.float64).reshape(-1, 2).T
  return epochs, np.where(np.isfinite(values), values, np.nan)


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
  from matplotlib.figure import Figure

  figure = Figure(figsize=(6.4, 3.8), dpi=120, layout="constrained")
  axes = figure.subplots()
  axes.set(title=title, xlabel=x, ylabel=y)
  axes.grid(alpha=0.3)
  return figure, axes


def _png(figure: Any, axes: Any) -> bytes:
  axes.legend(fontsize=9)
  file = io.BytesIO()
  figure.savefig(file, format="png")
  return file.getvalue()


def _plain(text: str) -> str:
  """Keeps matplotlib from reading a name as a formula, or leaving it out."""
  return text.replace("$", r"\$").lstrip("_")
