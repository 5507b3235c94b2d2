"""Renders a report as HTML with the template page.html.

The page needs no other file, no script and no network. The template escapes all text,
so names, paths and configurations may contain anything.
"""

import base64
import dataclasses
import functools
import io
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ctx_encoder import config as configuration
from ctx_encoder.apps.report.records import Kind, Report, Run
from ctx_encoder.evaluation import figures
from ctx_encoder.evaluation.table import Table, printable
from ctx_encoder.metrics.headings import METRICS, Metric
from ctx_encoder.metrics.intervals import Interval

KINDS = {
  "center": "A square in the middle, half as wide as the picture.",
  "random_block": "Up to four rectangles, at most a quarter of the picture together.",
  "random_region": "Irregular regions, a quarter of the picture together.",
  "brush": "Strokes of a brush.",
  "combined": "One of center, random_block and random_region, at random.",
}


class Picture(NamedTuple):
  """A PNG inside the page: its data URL and its size in pixels."""

  source: str
  width: int
  height: int


class Fields(NamedTuple):
  """Rows of the configuration tables: name and value, and for changed fields more."""

  changed: list[tuple[str, ...]]
  every: list[tuple[str, ...]]


def page(report: Report) -> str:
  """Returns a page of HTML that needs no other file."""
  import jinja2

  environment = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalize
  )
  environment.filters["picture"] = picture
  environment.filters["embedded"] = embedded
  source = (
    resources.files("ctx_encoder.apps.report").joinpath("page.html").read_text("utf-8")
  )
  runs = report.runs
  about = f"{len(runs)} runs" if len(runs) > 1 else runs[0].name
  return environment.from_string(source).render(
    report=report,
    title=f"Inpainting report: {about}",
    sections=sections(report),
    kinds=KINDS,
    percent=lambda share: f"{100 * share:.0f} %",
    matrix=lambda: _markup(matrix(report), "Runs and kinds of holes"),
    results_table=lambda run: _markup(
      results(report, run), f"{run.name} and the baselines"
    ),
    nearest_table=lambda run: _markup(nearest(run), "Distances"),
    measured=lambda: list(results(report, runs[0]).used.values()),
    verdicts=functools.partial(verdicts, report),
    compared=lambda run: len(next(iter(run.nearest.values())).distance),
    fields_of=fields,
  )


def sections(report: Report) -> dict[str, tuple[str, Run | None]]:
  """Returns {heading: (part of the template, run it is about)}, in order."""
  runs = report.runs
  if len(runs) > 1:
    found: dict[str, tuple[str, Run | None]] = {
      "The runs compared": ("matrix", None),
      "Completed pictures": ("completed", None),
    }
    found |= {f"Run {run.name}": ("run", run) for run in runs}
  else:
    found = {
      "Compared with the baselines": ("results", runs[0]),
      "Completed pictures": ("completed", None),
      "Training": ("training", runs[0]),
      "Best and worst cases": ("extremes", runs[0]),
      "Does it copy its training pictures?": ("memorisation", runs[0]),
      "Configuration": ("configuration", runs[0]),
    }
  return found | {
    "The holes": ("holes", None),
    "How this was measured": ("method", None),
  }


def matrix(report: Report) -> Table:
  """Returns the PSNR of systems, in rows, for kinds of holes, in columns."""
  names = [*(run.name for run in report.runs), *report.baselines]
  psnr = METRICS["psnr_hole"]
  columns = {
    kind.name: dataclasses.replace(psnr, heading=kind.name, unit="")
    for kind in report.kinds
  }
  rows = {
    name: {k.name: k.comparison.summary[name]["psnr_hole"] for k in report.kinds}
    for name in names
  }
  return Table.of(rows, columns, psnr.label)


def results(report: Report, run: Run) -> Table:
  """Returns all metrics of a run and the baselines, a group for each kind of hole."""
  groups = {}
  for kind in report.kinds:
    found = kind.comparison
    about = (
      f"{kind.name}: {len(found.names)} pictures, holes of"
      f" {100 * found.area.mean():.1f} % of the picture on average"
    )
    names = [run.name, *report.baselines]
    groups[about] = {name: found.summary[name] for name in names}
  return Table(groups, report.kinds[0].comparison.columns)


def nearest(run: Run) -> Table:
  """Returns the median distances and contrasts of a run's check of memorisation."""
  columns = {
    "distance": Metric("Distance", digits=1),
    "contrast": Metric("Contrast", digits=1),
  }
  rows = {
    name: {
      "distance": float(np.median(found.distance)),
      "contrast": float(np.median(found.contrast)),
    }
    for name, found in run.nearest.items()
  }
  return Table.of(rows, columns, "Holes of")


def verdicts(report: Report, kind: Kind, run: Run) -> str:
  """Returns the differences of a run to all baselines in words."""
  found = kind.comparison
  return "; ".join(
    verdict(found.difference(run.name, name, "psnr_hole"), name)
    for name in report.baselines
  )


def verdict(difference: Interval, other: str) -> str:
  """Returns a difference of PSNR in words."""
  mean, low, high = difference
  if low > 0:
    return f"{mean:.2f} dB better than {other} ({low:.2f} to {high:.2f})"
  if high < 0:
    return f"{-mean:.2f} dB worse than {other} ({-high:.2f} to {-low:.2f})"
  return f"no clear difference from {other} ({low:+.2f} to {high:+.2f} dB)"


def fields(run: Run) -> Fields:
  """Returns the fields of a run's configuration, the changed ones explained."""
  known, values = configuration.FIELDS, configuration.flatten(run.config)
  changed = [
    (name, str(value), str(known[name].default), known[name].help)
    for name, value in values.items()
    if value != known[name].default
  ]
  return Fields(changed, [(name, str(value)) for name, value in values.items()])


def picture(pixels: np.ndarray, side: int = 0) -> Picture:
  """Returns uint8 `[S, S, 3]` or bool `[S, S]` as a PNG of at most `side` pixels."""
  shown = Image.fromarray(np.uint8(255) * pixels if pixels.dtype == bool else pixels)
  if 0 < side < shown.width:
    shown = shown.resize((side, side), Image.Resampling.BOX)
  return embedded(figures.png(np.asarray(shown)))


def embedded(png: bytes) -> Picture:
  """Returns a PNG as part of the page."""
  with Image.open(io.BytesIO(png)) as opened:
    width, height = opened.size
  source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
  return Picture(source, width, height)


def _finalize(value: Any) -> Any:
  """Cleans what the template is about to escape."""
  return printable(value) if type(value) is str else value


def _markup(table: Table, label: str) -> Any:
  import markupsafe

  return markupsafe.Markup(table.html(label))
