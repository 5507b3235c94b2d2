"""Trains a configuration over a grid of settings and seeds, and tabulates the results.

Every combination of the --grid values is a cell, trained with every seed:

    ctx-encoder sweep --config configs/photos_block.py:quick --output sweeps/rate \\
        --grid optimizer.learning_rate=1e-4,2e-4,1e-3 --seeds 0 1 2

Fields are those of `ctx-encoder config`; --set changes one for all cells. Each run is a
process of its own, with a folder, a log and checkpoints, so that one that fails does
not end the others. The same command again goes on where it stopped, and tries failed
ones anew; with more values it trains only what is missing. Whenever a run is done,
table.md and results.json in the output folder hold what was reached so far.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctx_encoder.config import overrides as config_file
from ctx_encoder.config import schema as configuration
from ctx_encoder.data import files
from ctx_encoder.evaluation import compare as comparison
from ctx_encoder.evaluation import evaluate

METRICS = {"psnr_hole": ("PSNR hole (dB)", 1, 2), "l1_hole": ("L1 hole (%)", 100, 2)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "--config", required=True, help="configuration file, perhaps with :quick behind it"
  )
  parser.add_argument("--output", required=True, help="folder of the sweep")
  parser.add_argument(
    "--grid",
    nargs="+",
    default=[],
    metavar="FIELD=V1,V2",
    help="fields to vary and their values, separated by commas",
  )
  parser.add_argument(
    "--set",
    nargs="+",
    default=[],
    metavar="FIELD=VALUE",
    help="fields to set for all cells",
  )
  parser.add_argument(
    "--seeds", nargs="+", type=int, default=[0], help="of every cell (default: 0)"
  )


def run(args: argparse.Namespace) -> int:
  """Trains what is missing; returns 0, or 1 where a run failed or nothing began."""
  try:
    cells = make_cells(args)
    output = Path(args.output).absolute()
    output.mkdir(parents=True, exist_ok=True)
  except (ImportError, OSError, TypeError, ValueError) as error:
    print(f"ctx-encoder sweep: {error}", file=sys.stderr)
    return 1
  runs = [(label, seed) for label in cells for seed in args.seeds]
  failed: dict[str, str] = {}
  for number, (label, seed) in enumerate(runs, start=1):
    folder = output / f"{label}_seed{seed}"
    if results(folder) is None:
      print(f"{number} of {len(runs)}: {folder.name} ...", flush=True)
      problem = train(folder, cells[label], seed, output / "cache")
      if problem:
        failed[folder.name] = problem
        print(f"  failed: {problem}\n  Its log is {folder}.log.", file=sys.stderr)
    tabulate(output, list(cells), args.seeds, failed)
  print(f"\n{tabulate(output, list(cells), args.seeds, failed)}")
  print(f"Runs, table.md and results.json are in {output}.")
  return 1 if failed else 0


def make_cells(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
  """Returns {label: configuration as JSON} of every cell, all of them validated.

  Raises:
    ValueError: a field, value or configuration is wrong, or named twice.
    OSError, ImportError: the configuration file cannot be read.
  """
  if len(set(args.seeds)) < len(args.seeds):
    raise ValueError(f"--seeds names one twice: {args.seeds}.")
  grid = [config_file.parse(text, several=True) for text in args.grid]
  fixed = [config_file.parse(text) for text in args.set]
  named = [name for name, _ in (*grid, *fixed)]
  if len(set(named)) < len(named):
    raise ValueError(f"--grid and --set name a field twice: {', '.join(named)}.")
  cells = {}
  for values in itertools.product(*(values for _, values in grid)):
    chosen = dict(zip([name for name, _ in grid], values, strict=True))
    config = config_file.read(args.config)
    for name, value in ({n: v[0] for n, v in fixed} | chosen).items():
      config_file.set_field(config, name, value)
    configuration.validate(config)
    label = "_".join(f"{n.rpartition('.')[2]}={v}" for n, v in chosen.items()) or "run"
    cells[label.replace("/", "-")] = json.loads(config.to_json_best_effort())
  return cells


def train(folder: Path, config: Mapping[str, Any], seed: int, cache: Path) -> str:
  """Trains one run in a process of its own; returns "" or what went wrong."""
  cell = folder.with_name(f"{folder.name}.json")
  settings = {"workdir": str(folder), "cache": str(cache)}
  files.write(cell, json.dumps(settings | {"config": {**config, "seed": seed}}))
  environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | os.environ
  log = Path(f"{folder}.log")
  start = time.time()
  with log.open("a") as file:
    finished = subprocess.run(
      [sys.executable, "-m", "ctx_encoder.apps.commands.sweep", str(cell)],
      stdout=file,
      stderr=subprocess.STDOUT,
      env=environment,
      check=False,
    )
  if finished.returncode == 0:
    print(f"  {time.time() - start:.0f} s", flush=True)
    return ""
  lines = log.read_text(errors="replace").strip().splitlines()
  reason = lines[-1] if lines else "no output"
  return f"exit code {finished.returncode}: {reason}"


def results(folder: Path) -> dict[str, Any] | None:
  """Returns what a finished run reached, None where it has not finished."""
  try:
    return json.loads((folder / "results.json").read_text())["results"]
  except (OSError, ValueError, KeyError):
    return None


def tabulate(
  output: Path, labels: Sequence[str], seeds: Sequence[int], failed: Mapping[str, str]
) -> str:
  """Writes table.md and results.json; returns the table."""
  rows = [["", *(heading for heading, _, _ in METRICS.values()), "runs"]]
  written: dict[str, Any] = {"failed": dict(failed), "cells": {}}
  others: dict[str, Any] = {}
  for label in labels:
    found = {seed: results(output / f"{label}_seed{seed}") for seed in seeds}
    done = {seed: systems for seed, systems in found.items() if systems}
    written["cells"][label] = {
      seed: systems[evaluate.MODEL] for seed, systems in done.items()
    }
    rows.append(
      [label, *_cells([s[evaluate.MODEL] for s in done.values()]), str(len(done))]
    )
    for systems in done.values():
      others |= {name: m for name, m in systems.items() if name != evaluate.MODEL}
  for name, measured in others.items():
    rows.append([name, *_cells([measured]), "-"])
  written["baselines"] = others
  table = comparison.markdown(rows)
  note = "Mean over the seeds, and in brackets the lowest and the highest."
  files.write(output / "table.md", f"{table}\n\n{note}\n")
  files.write(output / "results.json", json.dumps(written, indent=1) + "\n")
  return f"{table}\n\n{note}"


def _cells(measured: Sequence[Mapping[str, float]]) -> list[str]:
  cells = []
  for name, (_, factor, digits) in METRICS.items():
    values = [factor * m[name] for m in measured if name in m]
    if not values:
      cells.append("-")
      continue
    text = f"{statistics.mean(values):.{digits}f}"
    if len(values) > 1:
      text += f" [{min(values):.{digits}f}, {max(values):.{digits}f}]"
    cells.append(text)
  return cells


def _train_cell(path: str) -> None:
  """What a run's own process does."""
  from ctx_encoder import xla
  from ctx_encoder.training import run as trainer

  cell = json.loads(Path(path).read_text())
  xla.cache_in(cell["cache"])
  try:
    trainer.train(configuration.from_saved(cell["config"]), cell["workdir"])
  except (ValueError, OSError, trainer.NonFiniteError) as error:
    sys.exit(str(error))


if __name__ == "__main__":
  _train_cell(sys.argv[1])
