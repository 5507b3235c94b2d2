"""Measures several trained generators on every kind of hole: who is good at what?

Prints a matrix of systems against kinds of holes, as one needs it to compare networks
that were trained for one kind with those trained for all, beside the baselines:

    ctx-encoder crosseval --workdir runs/photos_center runs/photos_combined

All complete the same images with the same holes; --json writes every figure, as
`ctx-encoder evaluate` does, whose other arguments serve here too.
"""

import argparse
from typing import Any

from ctx_encoder import comparison
from ctx_encoder.commands import evaluate


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  evaluate.add_arguments(parser)
  parser.add_argument(
    "--metric",
    choices=tuple(evaluate.COLUMNS),
    default="psnr_hole",
    help="what the matrix shows (default: psnr_hole)",
  )


def run(args: argparse.Namespace) -> int:
  """Prints the matrix; returns 0, or 1 where an argument does not serve."""
  return evaluate.answer("crosseval", matrix, args)


def matrix(args: argparse.Namespace) -> dict[str, Any]:
  """Prints the matrix and returns what --json writes; raises as `evaluate` does."""
  if args.metric == "lpips" and not args.heads:
    raise ValueError("--metric lpips needs --trunk and --heads.")
  plan = evaluate.make_plan(args)
  print(plan.what)
  figures = plan.header()
  rows: dict[str, dict[str, Any]] = {name: {} for name in plan.systems}
  for kind in plan.samplers:
    found, distributions = plan.compare(kind)
    summary = found.summary()
    for name in plan.systems:
      rows[name][kind] = summary[name][args.metric]
    figures["kinds"][kind] = {"systems": evaluate.as_json(summary)}
    if distributions:
      figures["kinds"][kind]["distributions"] = distributions
  heading, factor, digits = evaluate.COLUMNS[args.metric]
  columns = {kind: (kind, factor, digits) for kind in plan.samplers}
  print(f"\n{heading}, mean and 95 % confidence interval\n")
  print(comparison.table(rows, columns))
  return figures
