"""The page: what stands on it, and in which order."""

from collections.abc import Mapping
from itertools import chain

import numpy as np

from ctx_encoder.apps.report import markup, pictures, tables
from ctx_encoder.apps.report.markup import Html, tag
from ctx_encoder.apps.report.records import Report, Run
from ctx_encoder.config import schema as configuration

_ABOUT = (
  "A network has learnt to fill in the missing part of a picture, the hole. It sees the"
  " picture without that part and paints what may have been there. This page shows what"
  " it paints, and how close that is to the true picture, beside simple methods that"
  " have learnt nothing."
)


def page(report: Report) -> str:
  """Returns a page of HTML that needs no other file."""
  first, several = report.runs[0], len(report.runs) > 1
  title = f"Inpainting report: {f'{len(report.runs)} runs' if several else first.name}"
  shown = {"Completed pictures": pictures.completed(report)}
  if several:
    sections = {"The runs side by side": tables.matrix(report)} | shown
    for run in report.runs:
      parts = _about(report, run, level=3).items()
      sections[f"Run {run.name}"] = [
        *chain.from_iterable([tag("h3", head), *part] for head, part in parts)
      ]
  else:
    figures, *others = _about(report, first, level=2).items()
    sections = dict([figures]) | shown | dict(others)
  sections["The holes"] = pictures.holes(report)
  sections["How this was measured"] = [_words(report.method)]
  links = [tag("a", h, href=f"#part-{i}") for i, h in enumerate(sections)]
  return markup.document(
    title,
    tag("h1", title),
    tag("p", _ABOUT),
    tag("p", report.images),
    tag("nav", *(Html(f"{link} ") for link in links), aria_label="Parts of this page"),
    *(
      tag("section", tag("h2", head), *part, id=f"part-{i}")
      for i, (head, part) in enumerate(sections.items())
    ),
  )


def _about(report: Report, run: Run, level: int) -> dict[str, list[Html]]:
  """Returns {heading of a level: content}, the parts on one run."""
  return {
    "Against the baselines": tables.against_baselines(report, run),
    "Training": _training(run),
    "Best and worst cases": pictures.extremes(report, run, f"h{level + 1}"),
    "Does it copy its training pictures?": _memorisation(run),
    "Configuration": _configuration(run),
  }


def _training(run: Run) -> list[Html]:
  content = [_words(run.facts)]
  if not run.curves:
    return content
  charts = [
    tag("figure", markup.image(png, f"{title} of {run.name}", class_="chart"))
    for title, png in run.curves.items()
  ]
  return [
    *content,
    tag(
      "p",
      "An epoch is one pass over the training pictures. Validation is measured on"
      " pictures that are not trained on: where its curve turns while that of training"
      " goes on, the network begins to learn its pictures by heart. The dotted line is"
      " the epoch with the best validation, whose network this page is about.",
    ),
    tag("div", *charts, class_="charts"),
  ]


def _memorisation(run: Run) -> list[Html]:
  if not run.nearest:
    return [tag("p", "This was not looked into: the training pictures are not there.")]
  rows = [
    tag(
      "tr",
      tag("th", name, scope="row"),
      *(tag("td", f"{np.median(values):.1f}") for values in found),
    )
    for name, found in run.nearest.items()
  ]
  count, *_ = (len(found.distance) for found in run.nearest.values())
  return [
    tag(
      "p",
      f"{count} pictures were completed at their centre, and the training patch most"
      " like each was looked up. Distance is how much the two differ, contrast how much"
      " the hole differs from its own mean colour: root mean squares, in levels of 255,"
      " at a quarter of the resolution, and of all pictures the median. A network that"
      " copies has the contrast of the true pictures, and a much smaller distance. A"
      " small distance with little contrast is no copy: what is smooth is near to some"
      " patch anyway.",
    ),
    markup.table("Distances", ["Holes of", "Distance", "Contrast"], rows),
    tag(
      "figure",
      markup.image(run.histogram, f"Distances of {run.name}", class_="chart"),
      class_="charts",
    ),
  ]


def _configuration(run: Run) -> list[Html]:
  known = dict(configuration.fields())
  values = configuration.flatten(run.config)
  changed = [
    tag("tr", *(tag("td", str(cell)) for cell in (name, value, known[name].default)),
        tag("td", known[name].help))
    for name, value in values.items()
    if value != known[name].default
  ]  # fmt: skip
  every = [
    tag("tr", tag("td", name), tag("td", str(value))) for name, value in values.items()
  ]
  head = ["Field", "Value", "Default", "Meaning"]
  return [
    tag("p", "What differs from the defaults:"),
    markup.table("Changed fields", head, changed, class_="words"),
    tag(
      "details",
      tag("summary", f"All {len(every)} fields"),
      markup.table("All fields", head[:2], every, class_="words"),
    ),
  ]


def _words(facts: Mapping[str, str]) -> Html:
  pairs = ((tag("dt", what), tag("dd", value)) for what, value in facts.items())
  return tag("dl", *chain.from_iterable(pairs))
