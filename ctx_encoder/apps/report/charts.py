"""Charts of a report, a PNG each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctx_encoder.evaluation import figures


def curves(history: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
  """Returns {title: PNG} of the panels for which a run has logged values.

  Args:
    history: as for `figures.curves`.
  """
  made = {}
  for title in figures.PANELS:
    figure = figures.new_figure(6.4, 4.3, dpi=120)
    if figures.draw_panel(figure.subplots(), title, history):
      made[title] = figures.figure_png(figure)
  return made


def distances(found: Mapping[str, np.ndarray]) -> bytes:
  """Returns a PNG with a row of points for each of {name: `[N]`}; b"" of none.

  The median of each row is marked.
  """
  if not found:
    return b""
  figure = figures.new_figure(6.4, 1.3 + 0.5 * len(found), dpi=120)
  axes = figure.subplots()
  for row, values in enumerate(found.values()):
    axes.plot(values, np.full(len(values), row), "o", color="#0072B2", alpha=0.4)
    median = float(np.median(values))
    axes.plot([median] * 2, [row - 0.3, row + 0.3], color="black", linewidth=2)
    axes.annotate(f"{median:.1f}", (median, row - 0.32), ha="center", fontsize=8)
  names = [figures.plain(name) for name in found]
  axes.set_yticks(range(len(names)), names)
  axes.set(
    title="Distance to the nearest training patch, and its median",
    xlabel="distance (levels of 255)",
    xlim=(0, None),
    ylim=(len(found) - 0.5, -0.7),
  )
  axes.grid(alpha=0.3, axis="x")
  return figures.figure_png(figure)
