"""Measures several trained generators on every kind of hole: who is good at what?

Prints a matrix of systems against kinds of holes, as one needs it to compare networks
that were trained for one kind with those trained for all, beside the baselines:

    ctx-encoder crosseval --workdir runs/photos_center runs/photos_combined

Where a run was trained for one of the kinds, a second matrix says what others lack to
it there, image by image. All complete the same images with the same holes; --json
writes every figure, as `ctx-encoder evaluate` does, whose other arguments serve here
too.
"""

import argparse
from typing import Any

from ctx_encoder.apps.commands import evaluate
from ctx_encoder.evaluation import compare as comparison
from ctx_encoder.metrics import intervals

# Kernel distance of the features' distributions, with --trunk.
_KID = ("KID (x 1000)", 1000.0, 2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  evaluate.add_arguments(parser)
  parser.add_argument(
    "--metric",
    nargs="+",
    choices=(*evaluate.COLUMNS, "kid"),
    default=["psnr_hole"],
    help="what the matrices show (default: psnr_hole)",
  )


def run(args: argparse.Namespace) -> int:
  """Prints the matrices; returns 0, or 1 where an argument does not serve."""
  return evaluate.answer("crosseval", matrices, args)


def matrices(args: argparse.Namespace) -> dict[str, Any]:
  """Prints the matrices and returns what --json writes; raises as `evaluate` does."""
  if "lpips" in args.metric and not args.heads:
    raise ValueError("--metric lpips needs --trunk and --heads.")
  if "kid" in args.metric and not args.trunk:
    raise ValueError("--metric kid needs --trunk.")
  plan = evaluate.make_plan(args)
  print(plan.what)
  figures = plan.header()
  rows: dict[str, Any] = {
    metric: {name: {} for name in plan.systems} for metric in args.metric
  }
  behind: dict[str, dict[str, Any]] = {name: {} for name in plan.systems}
  for kind in plan.samplers:
    found, distributions = plan.compare(kind)
    summary = found.summary()
    for metric in args.metric:
      for name in plan.systems:
        rows[metric][name][kind] = (
          intervals.Interval(**distributions[name]["kid"])
          if metric == "kid"
          else summary[name][metric]
        )
    own = specialists(plan, kind)
    for name in plan.systems:
      if len(own) == 1 and name not in own:
        behind[name][kind] = found.difference(name, own[0], "psnr_hole")
    figures["kinds"][kind] = {"systems": evaluate.as_json(summary)}
    if distributions:
      figures["kinds"][kind]["distributions"] = distributions
  for metric, table in rows.items():
    heading, factor, digits = evaluate.COLUMNS.get(metric, _KID)
    columns = {kind: (kind, factor, digits) for kind in plan.samplers}
    print(f"\n{heading}, mean and 95 % confidence interval\n")
    print(comparison.table(table, columns))
  behind = {name: row for name, row in behind.items() if row}
  if any(name in plan.models for name in behind):
    columns = {kind: (kind, 1.0, 2) for kind in plan.samplers}
    print("\nPSNR hole (dB) above that of the model trained for that kind alone\n")
    print(comparison.table(behind, columns))
    figures["above_specialist"] = evaluate.as_json(behind)
  return figures


def specialists(plan: evaluate.Plan, kind: str) -> list[str]:
  """Returns the models that were trained for one kind of hole alone."""
  return [
    name
    for name, model in plan.models.items()
    if kind != "combined" and model.config.masks.kind == kind
  ]
