"""Measures several trained generators on every kind of hole, as a matrix.

Rows are systems, columns are kinds of holes: it compares networks that were trained for
one kind with those trained for all, and with the baselines.

    ctx-encoder crosseval --workdir runs/photos_center runs/photos_combined

Where exactly one run was trained for a kind, a second matrix gives the PSNR difference
of all other systems to that run, image by image. All systems complete the same images
with the same holes. --json writes every figure; the other arguments are those of
`ctx-encoder evaluate`.
"""

import argparse
import dataclasses
from typing import Any

from ctx_encoder.apps import runs
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.apps.commands import evaluate
from ctx_encoder.evaluation.table import Table, as_json
from ctx_encoder.metrics.headings import METRICS, Metric


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  evaluate.add_arguments(parser)
  parser.add_argument(
    "--metric",
    nargs="+",
    choices=tuple(METRICS),
    default=["psnr_hole"],
    help="metrics of the matrices",
  )


def run(args: argparse.Namespace) -> int:
  """Prints the matrices and writes the figures."""
  request = evaluate.request_of(args, args.workdir)
  evaluate.write_json(args.json, matrices(request, args.metric))
  return 0


def matrices(request: runs.Request, metrics: list[str]) -> dict[str, Any]:
  """Prints a matrix for each metric and returns all figures.

  Raises:
    ValueError: a metric needs weights that are not given; and as `runs.make_plan`.
  """
  for metric, weights in (
    ("lpips", request.heads),
    ("kid", request.trunk),
    ("fid", request.trunk),
  ):
    if metric in metrics and not weights:
      needed = "--trunk and --heads" if metric == "lpips" else "--trunk"
      raise ValueError(f"--metric {metric} needs {needed}.")
  plan = evaluate.announced(request)
  found = {kind: plan.compare(kind) for kind in plan.samplers}
  columns = plan.perceptual.columns if plan.perceptual else METRICS
  for name in metrics:
    rows = {
      system: {kind: one.summary[system][name] for kind, one in found.items()}
      for system in plan.systems
    }
    print(f"\n{columns[name].label}, mean and 95 % confidence interval\n")
    print(matrix(rows, columns[name]).markdown())
  figures = plan.header()
  figures["kinds"] = {
    kind: {"systems": as_json(one.summary)} for kind, one in found.items()
  }
  above = above_specialists(plan, found)
  if any(name in plan.models for name in above):
    print(
      "\nPSNR difference to the specialist model, the run trained for that kind (dB)"
    )
    print(f"\n{matrix(above, METRICS['psnr_hole']).markdown()}")
    figures["above_specialist"] = as_json(above)
  return figures


def matrix(rows: dict[str, Any], metric: Metric) -> Table:
  """Returns {system: {kind of hole: value}} of one metric as a table."""
  kinds = dict.fromkeys(kind for row in rows.values() for kind in row)
  headed = {kind: dataclasses.replace(metric, heading=kind, unit="") for kind in kinds}
  return Table.of(rows, headed)


def above_specialists(plan: runs.Plan, found: dict[str, Any]) -> dict[str, Any]:
  """Returns {system: {kind: PSNR difference to the one run trained for that kind}}."""
  above: dict[str, Any] = {}
  for kind, comparison in found.items():
    own = [
      name
      for name, model in plan.models.items()
      if kind != "combined" and model.config.masks.kind == kind
    ]
    if len(own) == 1:
      for name in plan.systems.keys() - set(own):
        difference = comparison.difference(name, own[0], "psnr_hole")
        above.setdefault(name, {})[kind] = difference
  return {name: above[name] for name in plan.systems if name in above}
