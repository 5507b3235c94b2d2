"""Writes one HTML page about a training run, or about several side by side.

It needs no other file: figures against baselines with 95 % intervals, completed
pictures, curves, best and worst cases, a check of memorisation, the configuration.

    ctx-encoder report runs/photos_block --output photos_block.html
    ctx-encoder report runs/photos_block runs/photos_combined --images photos \\
        --max-images 1000 --pngs pictures

All runs complete the same images with the same holes, which depend on --seed and the
image's name alone. Of the pictures that the first run was trained on only its
validation part is used, unless --all says otherwise.
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
from ctx_encoder import data, masks
from ctx_encoder.apps import report
from ctx_encoder.apps.commands import evaluate
from ctx_encoder.apps.report import measure
from ctx_encoder.data import files
from ctx_encoder.evaluation import baselines, figures
from ctx_encoder.evaluation import compare as comparison
from ctx_encoder.training import trained

BYTES = 8e6  # that the pictures of a page may take, about


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  kinds, known = ", ".join(evaluate.KINDS), ", ".join(baselines.BASELINES)
  add = parser.add_argument
  add("runs", nargs="*", metavar="RUN", help="folder of a run, as launch.py made it")
  add("--workdir", nargs="+", default=[], metavar="RUN", help="the same, or more runs")
  add("--output", default="report.html", help="page to write (default: report.html)")
  add("--pngs", metavar="DIR", help="folder to write its pictures to, as PNGs")
  add(
    "--images",
    help="folder of images, of TFRecords, or name of a TFDS data set (default: what the"
    " first run was trained with)",
  )
  add("--all", action="store_true", help="use all images, not only the validation part")
  add(
    "--max-images",
    type=int,
    default=200,
    help="at most this many, spread evenly over all (default: 200)",
  )
  add(
    "--masks",
    nargs="+",
    choices=evaluate.KINDS,
    default=list(evaluate.KINDS[:4]),
    metavar="KIND",
    help=f"kinds of holes, of: {kinds} (default: the first four)",
  )
  add(
    "--baselines",
    nargs="*",
    choices=tuple(baselines.BASELINES),
    default=["mean", "telea"],
    metavar="NAME",
    help=f"what to hold the runs against, of: {known} (default: mean telea)",
  )
  add(
    "--count",
    type=int,
    default=0,
    help="pictures to show of each kind of hole (default: up to 6, so that the page"
    " stays below 10 MB)",
  )
  add(
    "--seed", type=int, default=0, help="of holes and choice of pictures (default: 0)"
  )
  add("--batch-size", type=int, default=16, help="images a call (default: 16)")


def run(args: argparse.Namespace) -> int:
  """Writes the page; returns 0, or 1 where an argument or a run does not serve."""
  try:
    made = make_report(args)
    page = report.page(made).encode(errors="backslashreplace")
    files.write(args.output, page)
    if args.pngs:
      write_pngs(made, Path(args.pngs))
  except (OSError, ValueError) as error:
    print(f"ctx-encoder report: {error}", file=sys.stderr)
    return 1
  for about in made.runs:
    for note in about.notes:
      print(f"{about.name}: {note}", file=sys.stderr)
  print(f"{args.output}  {len(page) / 1e6:.1f} MB")
  return 0


def make_report(args: argparse.Namespace) -> report.Report:
  """Measures everything that the page tells; raises as `make_plan` does."""
  plan, images = make_plan(args)
  size, kinds = plan.examples.image_size, list(dict.fromkeys(args.masks))
  side, extremes, count = layout(size, len(kinds), len(plan.models), len(plan.shown))
  drawn = np.random.default_rng(args.seed).permutation(len(plan.examples))
  chosen = sorted(drawn[: args.count or count].tolist())
  return report.Report(
    runs=[measure.run(plan, name, training(plan.models[name])) for name in plan.models],
    baselines=plan.baselines,
    kinds=[measure.kind(plan, kind, chosen, extremes) for kind in kinds],
    shown=plan.shown,
    images=images,
    side=side,
    method=method(args, plan),
  )


def make_plan(args: argparse.Namespace) -> tuple[measure.Plan, str]:
  """Loads runs, images and baselines; returns them and a sentence on the images.

  Raises:
    FileNotFoundError: there is no such run, or no such images.
    ValueError: the runs do not fit together, one is damaged, or an argument is wrong.
  """
  for option, least in (("max-images", 1), ("batch-size", 1), ("count", 0)):
    value = getattr(args, option.replace("-", "_"))
    if value < least:
      raise ValueError(f"--{option} must be at least {least}, not {value}.")
  workdirs = [*args.runs, *args.workdir]
  if not workdirs:
    raise ValueError("Name the folder of a run, such as runs/photos_block.")
  models = evaluate.load_runs(workdirs)
  size = evaluate.image_size(models)
  own = next(iter(models.values()))
  whole = argparse.Namespace(images=args.images, all=args.all, max_images=0)
  examples, what = evaluate.images(whole, own)
  how = ", spread evenly over" if args.max_images < len(examples) else ":"
  examples = spread(examples, args.max_images)
  sentence = (
    f"{len(examples)} pictures of {size}x{size} pixels were completed{how}"
    f" {what[:1].lower()}{what[1:].rstrip(',')}."
  )
  if args.all and args.images in (None, own.config.data.path):
    sentence += " Some of them are what the runs were trained on."
  systems = {name: evaluate.system(model) for name, model in models.items()}
  for printed, complete in baselines.available(args.baselines).items():
    if printed in models:
      raise ValueError(f"A run has a baseline's name, {printed!r}; leave that one out.")
    systems[printed] = comparison.of_baseline(complete)
  samplers = {kind: masks.make_sampler(kind, size) for kind in {*args.masks, "center"}}
  key = jax.random.key(args.seed)
  plan = measure.Plan(models, systems, samplers, examples, key, args.batch_size)
  return plan, sentence


def spread(examples: data.Examples, count: int) -> data.Examples:
  """Returns at most `count` of the examples, evenly spread over their names."""
  if count >= len(examples):
    return examples
  assert examples.images is not None  # they are kept in memory
  chosen = np.linspace(0, len(examples) - 1, count).round().astype(int)
  return examples.keep(chosen, examples.images[chosen])


def training(model: trained.Trained) -> np.ndarray | str:
  """Returns the images a run was trained on, or why there are none."""
  try:
    return evaluate.training_images(model)
  except (OSError, ValueError) as error:
    return f"Its training pictures cannot be read: {error}"


def layout(size: int, kinds: int, runs: int, systems: int) -> tuple[int, int, int]:
  """Returns how much a page shows that is not to be too large.

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


def method(args: argparse.Namespace, plan: measure.Plan) -> dict[str, str]:
  """Returns {what: in words} of how all was measured."""
  devices = jax.devices()
  libraries = ", ".join(f"{name} {version(name)}" for name in ("jax", "flax", "numpy"))
  found = {
    "Pictures": f"{len(plan.examples)}, each with one hole of each kind",
    "Holes": f"drawn with seed {args.seed}, with the default sizes of each kind",
    "Confidence intervals": "bootstrap over the images, 2000 resamples",
    "Program": f"ctx-encoder {ctx_encoder.__version__}, {libraries}",
    "Machine": f"Python {platform.python_version()} on {platform.platform()}; JAX on"
    f" {len(devices)} x {devices[0].device_kind}",
  }
  if not (args.images or next(iter(plan.models.values())).config.data.path):
    found["Confidence intervals"] += (
      "; the embedded photographs are cut into crops that overlap, which makes them"
      " narrower than they should be"
    )
  wanted = {baselines.BASELINES[name][0] for name in args.baselines}
  if missing := sorted(wanted - plan.systems.keys()):
    found["Left out"] = f"{', '.join(missing)}: its library is not installed"
  return found


def write_pngs(made: report.Report, folder: Path) -> None:
  """Writes what the page shows: a PNG for each kind of hole and for each chart."""
  for kind in made.kinds:
    figures.save_png(
      folder / f"completed_{kind.name}.png", grid(kind.cases, made.shown)
    )
    holes = [np.uint8(255) * np.repeat(hole[..., None], 3, 2) for hole in kind.holes]
    figures.save_png(folder / f"holes_{kind.name}.png", figures.grid([holes]))
  for number, about in enumerate(made.runs, 1):
    start = f"run{number}_{_slug(about.name)}"
    for kind in made.kinds:
      for what, cases in zip(("best", "worst"), kind.extremes[about.name], strict=True):
        path = folder / f"{start}_{what}_{kind.name}.png"
        figures.save_png(path, grid(cases, [about.name]))
    charts = about.curves | ({"distances": about.histogram} if about.histogram else {})
    for title, png in charts.items():
      files.write(folder / f"{start}_{_slug(title)}.png", png)


def grid(cases: list[report.Case], systems: list[str]) -> np.ndarray:
  """Returns a row of pictures for each case."""
  rows = [[c.original, c.masked, *(c.completed[s] for s in systems)] for c in cases]
  figures_below = [["", "", *(f"{c.psnr[s]:.1f} dB" for s in systems)] for c in cases]
  labels = ("original", "with the hole", *systems)
  scale = max(1, 128 // len(cases[0].original))
  return figures.grid(rows, column_labels=labels, captions=figures_below, scale=scale)


def _slug(text: str) -> str:
  return re.sub(r"[^a-zA-Z0-9]+", "_", text).strip("_").lower()
