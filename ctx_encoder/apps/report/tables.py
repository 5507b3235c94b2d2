"""The figures of a page: runs against kinds of holes, a run against baselines."""

from collections.abc import Iterable, Mapping, Sequence

from ctx_encoder.apps.report import markup
from ctx_encoder.apps.report.markup import Html, tag
from ctx_encoder.apps.report.records import Report, Run
from ctx_encoder.metrics.intervals import Interval

# Heading, factor, digits and meaning of each metric that is shown. Of PSNR and SSIM
# more is better, of the others less.
MEASURES = {
  "psnr_hole": ("PSNR hole (dB)", 1, 2, "closeness to the original inside the hole"),
  "l1_hole": ("L1 hole (%)", 100, 2, "mean absolute error inside the hole"),
  "l2_hole": ("L2 hole (%)", 100, 2, "mean squared error inside the hole"),
  "ssim_hole": ("SSIM hole", 1, 3, "likeness of structure in the hole, 1 = the same"),
  "psnr_image": ("PSNR image (dB)", 1, 2, "closeness over the whole picture"),
  "seam": ("Seam (%)", 100, 2, "error of the colour steps across the hole's border"),
}


def matrix(report: Report) -> list[Html]:
  """Returns the table of systems against kinds of holes."""
  names = [*(run.name for run in report.runs), *report.baselines]
  columns = [
    ("psnr_hole", {name: kind.summary[name]["psnr_hole"] for name in names})
    for kind in report.kinds
  ]
  head = ["PSNR hole (dB)", *(kind.name for kind in report.kinds)]
  return [
    tag(
      "p",
      "Each row is a run or a simple method, each column a kind of hole. The figure is"
      " the mean PSNR (peak signal-to-noise ratio) inside the hole: how close it is to"
      " the original. More is better; 3 dB more is half the squared error. Below it"
      " stands its 95 % confidence interval. ★ marks the best of a column.",
    ),
    markup.table("Runs and kinds of holes", head, rows(names, columns)),
  ]


def against_baselines(report: Report, run: Run) -> list[Html]:
  """Returns one run and the baselines, in words and as a table."""
  names = [run.name, *report.baselines]
  measured = [m for m in MEASURES if m in report.kinds[0].summary[run.name]]
  verdicts, groups = [], []
  for kind in report.kinds:
    found = kind.comparison
    said = "; ".join(
      verdict(found.difference(run.name, name, "psnr_hole"), name)
      for name in report.baselines
    )
    verdicts.append(tag("li", tag("b", kind.name), f": {said}."))
    about = (
      f"{kind.name}: {len(found.names)} pictures, holes of"
      f" {100 * found.area.mean():.1f} % of the picture on average"
    )
    heading = tag("th", about, colspan=len(measured) + 1, scope="rowgroup")
    columns = [(m, {name: kind.summary[name][m] for name in names}) for m in measured]
    groups.append([tag("tr", heading), *rows(names, columns)])
  in_words = [
    tag(
      "p",
      f"{run.name} was trained on holes of kind {run.config.masks.kind}. On the same"
      " pictures with the same holes, by the PSNR inside the hole (peak signal-to-noise"
      " ratio; 3 dB more is half the squared error; in brackets the 95 % confidence"
      " interval of the difference), it is:",
    ),
    tag("ul", *verdicts),
  ]
  meanings = [
    part
    for heading, _, _, meaning in map(MEASURES.__getitem__, measured)
    for part in (tag("dt", heading), tag("dd", meaning))
  ]
  return [
    *(tag("p", note) for note in run.notes),
    *(in_words if report.baselines else []),
    tag(
      "p",
      "All measures: the mean over the pictures, and below it its 95 % confidence"
      " interval. Arrows tell whether more (↑) or less (↓) is better. ★ marks the best"
      " mean of each group.",
    ),
    markup.table(
      f"{run.name} and the baselines",
      [
        "",
        *(f"{MEASURES[m][0]} {'↑' if more_is_better(m) else '↓'}" for m in measured),
      ],
      *groups,
    ),
    tag("details", tag("summary", "What the measures mean"), tag("dl", *meanings)),
  ]


def verdict(difference: Interval, other: str) -> str:
  """Returns a difference of PSNR in words."""
  mean, low, high = difference
  if low > 0:
    return f"{mean:.2f} dB better than {other} ({low:.2f} to {high:.2f})"
  if high < 0:
    return f"{-mean:.2f} dB worse than {other} ({-high:.2f} to {-low:.2f})"
  return f"no clear difference from {other} ({low:+.2f} to {high:+.2f} dB)"


def more_is_better(metric: str) -> bool:
  return metric.startswith(("psnr", "ssim"))


def rows(
  names: Sequence[str], columns: Iterable[tuple[str, Mapping[str, Interval]]]
) -> list[Html]:
  """Returns a row of each name.

  Args:
    names: of systems.
    columns: (metric, {name: interval}).
  """
  cells = {name: [tag("th", name, scope="row")] for name in names}
  for metric, values in columns:
    _, factor, digits, _ = MEASURES[metric]
    choose = max if more_is_better(metric) else min
    best = choose(values[name].mean for name in names)
    for name in names:
      mean, low, high = (f"{factor * x:.{digits}f}" for x in values[name])
      shown = tag("b", f"{mean} ★") if values[name].mean == best else mean
      cells[name].append(tag("td", shown, tag("small", f"{low} to {high}")))
  return [tag("tr", *row) for row in cells.values()]
