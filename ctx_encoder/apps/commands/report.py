"""Writes one HTML page about a training run, or about several compared.

The page needs no other file. It has results against baselines with 95 % intervals,
completed pictures, curves, best and worst cases, a check of memorisation, and the
configuration.

    ctx-encoder report runs/photos_block --output photos_block.html
    ctx-encoder report runs/photos_block runs/photos_combined --images photos \\
        --max-images 1000 --pngs pictures

All runs complete the same images with the same holes, which depend only on --seed and
the image's name. Of the images that the first run was trained on only its validation
part is used, unless --all is given.
"""

import argparse
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

import ctx_encoder
from ctx_encoder.apps import report, runs
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.apps.commands import evaluate
from ctx_encoder.apps.report import measure
from ctx_encoder.data import files
from ctx_encoder.evaluation import figures
from ctx_encoder.training import trained

BYTES = 8e6  # of the pictures of a page, roughly


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  add = parser.add_argument
  add("runs", nargs="*", metavar="RUN", help="folder of a run, as launch.py made it")
  add("--workdir", nargs="+", default=[], metavar="RUN", help="the same, or more runs")
  add("--output", default="report.html", help="page to write")
  add("--pngs", metavar="DIR", help="folder to write its pictures to, as PNGs")
  parser.number(
    "--count",
    0,
    "pictures to show of each kind of hole; 0 = up to 6, so that the page stays below"
    " 10 MB",
    0,
  )
  evaluate.add_request_arguments(parser, max_images=200)


def run(args: argparse.Namespace) -> int:
  """Writes the page; raises as `make_report`."""
  made = make_report(args)
  page = report.page(made).encode(errors="backslashreplace")
  files.write(args.output, page)
  if args.pngs:
    write_pngs(made, Path(args.pngs))
  for about in made.runs:
    for note in about.notes:
      print(f"{about.name}: {note}", file=sys.stderr)
  print(f"{args.output}  {len(page) / 1e6:.1f} MB")
  return 0


def make_report(args: argparse.Namespace) -> report.Report:
  """Measures everything on the page.

  Raises:
    FileNotFoundError: there is no such run, or no such images.
    ValueError: the runs do not fit together, one is damaged, or an argument is wrong.
  """
  workdirs = [*args.runs, *args.workdir]
  if not workdirs:
    raise ValueError("Name the folder of a run, such as runs/photos_block.")
  plan = runs.make_plan(evaluate.request_of(args, workdirs))
  shown, kinds = measure.shown(plan), list(plan.samplers)
  size, count = plan.examples.image_size, len(plan.examples)
  side, extremes, most = layout(size, len(kinds), len(plan.models), len(shown))
  drawn = np.random.default_rng(args.seed).permutation(count)
  chosen = sorted(drawn[: args.count or most].tolist())
  return report.Report(
    runs=[measure.run(plan, name, training(plan.models[name])) for name in plan.models],
    baselines=plan.baselines,
    kinds=[measure.kind(plan, kind, chosen, extremes) for kind in kinds],
    shown=shown,
    images=images(plan),
    side=side,
    method=method(plan),
  )


def images(plan: runs.Plan) -> str:
  """Returns a sentence on the images."""
  size, first = plan.examples.image_size, next(iter(plan.models.values()))
  sentence = f"Completed at {size}x{size} pixels: {plan.about_images}."
  asked = plan.request.images
  _, own = runs.settings_of(first, asked)
  if asked.everything and own:
    sentence += " Some of them are training pictures of the runs."
  return sentence


def training(model: trained.Trained) -> np.ndarray | str:
  """Returns the images a run was trained on, or why they are missing."""
  try:
    return runs.training_images(model)
  except (ImportError, OSError, ValueError) as error:
    return f"Its training pictures cannot be read: {error}"


def layout(size: int, kinds: int, runs: int, systems: int) -> tuple[int, int, int]:
  """Returns how much a page shows, so that it does not become too large.

  Args:
    size: side of the pictures.
    kinds: number of kinds of holes.
    runs: number of runs.
    systems: number of systems that are shown on each picture.

  Returns:
    The side that pictures are shown with, the number of best and of worst cases, and
    that of pictures, of each kind of hole.
  """
  while True:
    most = BYTES / (3 * size**2)  # a PNG is smaller than its pixels, base64 larger
    extremes = 2 if 12 * kinds * runs < most / 2 else 1
    count = (most - 6 * extremes * kinds * runs) / (kinds * (2 + systems))
    if count >= 2 or size <= 64:
      return size, extremes, int(np.clip(count, 1, 6))
    size //= 2


def method(plan: runs.Plan) -> dict[str, str]:
  """Returns {what: in words} about the measurements."""
  devices = jax.devices()
  libraries = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "numpy"))
  found = {
    "Pictures": f"{len(plan.examples)}, each with one hole of each kind",
    "Holes": f"drawn with seed {plan.request.seed}, in the default sizes of each kind",
    "Confidence intervals": "bootstrap over the images, 2000 resamples",
    "Program": f"ctx-encoder {ctx_encoder.__version__}, {libraries}",
    "Machine": f"Python {platform.python_version()} on {platform.platform()}; JAX on"
    f" {len(devices)} x {devices[0].device_kind}",
  }
  if plan.perceptual:
    found["Features"] = (
      f"FID and KID: layer {plan.perceptual.layer} of {plan.perceptual.printed},"
      " averaged over positions, with published weights; not the Inception features of"
      " other papers, whose values are not comparable"
    )
  first = next(iter(plan.models.values()))
  if not (plan.request.images.path or first.config.data.path):
    found["Confidence intervals"] += (
      "; the embedded photographs are cut into overlapping crops, which makes the"
      " intervals too narrow"
    )
  return found | ({"Left out": " ".join(plan.notes)} if plan.notes else {})


def write_pngs(made: report.Report, folder: Path) -> None:
  """Writes the pictures of the page: a PNG for each kind of hole and each chart."""
  for kind in made.kinds:
    save(folder, f"completed_{kind.name}", grid(kind.cases, made.shown))
    holes = [np.uint8(255) * np.repeat(hole[..., None], 3, 2) for hole in kind.holes]
    save(folder, f"holes_{kind.name}", figures.grid([holes]))
  for number, about in enumerate(made.runs, 1):
    start = f"run{number}_{_slug(about.name)}"
    for kind in made.kinds:
      for what, cases in zip(("best", "worst"), kind.extremes[about.name], strict=True):
        save(folder, f"{start}_{what}_{kind.name}", grid(cases, [about.name]))
    charts = about.curves | ({"distances": about.distances} if about.distances else {})
    for title, png in charts.items():
      files.write(folder / f"{start}_{_slug(title)}.png", png)


def save(folder: Path, name: str, image: np.ndarray) -> None:
  figures.save_png(folder / f"{name}.png", image)


def grid(cases: list[report.Case], systems: list[str]) -> np.ndarray:
  """Returns a row of pictures for each case."""
  rows = [[c.original, c.masked, *(c.completed[s] for s in systems)] for c in cases]
  captions = [["", "", *(f"{c.psnr[s]:.1f} dB" for s in systems)] for c in cases]
  labels = ("original", "with the hole", *systems)
  scale = max(1, 128 // len(cases[0].original))
  return figures.grid(rows, column_labels=labels, captions=captions, scale=scale)


def _slug(text: str) -> str:
  return re.sub(r"[^a-zA-Z0-9]+", "_", text).strip("_").lower()
