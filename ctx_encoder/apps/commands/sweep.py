"""Trains a configuration over a grid of settings and seeds, and tabulates the results.

Every combination of the --grid values is a cell, trained with every seed:

    ctx-encoder sweep --config configs/photos_block.py:quick --output sweeps/rate \\
        --grid optimizer.learning_rate=1e-4,2e-4,1e-3 --seeds 0 1 2

Fields are those of `ctx-encoder config`; --set changes one for all cells. Each run is a
process with its own folder, log and checkpoints: one that fails does not end the
others. The same command again continues where it stopped and retries failed runs; with
more values it trains only what is missing. Runs of another configuration in the output
folder are an error, not reused. After every run, table.md and results.json in the
output folder hold the results so far.
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

from ctx_encoder import config as configuration
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.data import files
from ctx_encoder.evaluation.compare import MODEL
from ctx_encoder.evaluation.table import Table
from ctx_encoder.metrics.headings import METRICS, Metric
from ctx_encoder.metrics.intervals import Interval

COLUMNS = {name: METRICS[name] for name in ("psnr_hole", "l1_hole")}
_NOTE = "Mean over the seeds, and in brackets the lowest and the highest."


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  add = parser.add_argument
  add("--config", required=True, help="configuration file, :quick may be appended")
  add("--output", required=True, help="folder of the sweep")
  add(
    "--grid",
    nargs="+",
    default=[],
    metavar="FIELD=V1,V2",
    help="fields to vary and their values, separated by commas",
  )
  add(
    "--set",
    nargs="+",
    default=[],
    metavar="FIELD=VALUE",
    help="fields to set for all cells",
  )
  parser.number("--seeds", [0], "of every cell", 0)


def run(args: argparse.Namespace) -> int:
  """Trains what is missing; returns 0, or 1 where a run failed.

  Raises:
    ValueError: a field, value or configuration is wrong, or the folder holds results of
      another configuration.
    OSError, ImportError: the configuration file cannot be read.
  """
  cells = make_cells(args)
  output = Path(args.output).absolute()
  wanted = {
    output / f"{label}_seed{seed}": {**config, "seed": seed}
    for label, config in cells.items()
    for seed in args.seeds
  }
  for folder, config in wanted.items():
    check_same(folder, config)
  output.mkdir(parents=True, exist_ok=True)
  failed: dict[str, str] = {}
  for number, (folder, config) in enumerate(wanted.items(), start=1):
    if results(folder) is None:
      print(f"{number} of {len(wanted)}: {folder.name} ...", flush=True)
      if problem := train(folder, config, output / "cache"):
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
  grid = [configuration.parse(text, several=True) for text in args.grid]
  fixed = [configuration.parse(text) for text in args.set]
  named = [name for name, _ in (*grid, *fixed)]
  if len(set(named)) < len(named):
    raise ValueError(f"--grid and --set name a field twice: {', '.join(named)}.")
  cells = {}
  for values in itertools.product(*(values for _, values in grid)):
    chosen = dict(zip([name for name, _ in grid], values, strict=True))
    config = configuration.read(args.config)
    configuration.override(config, {n: v[0] for n, v in fixed} | chosen)
    configuration.validate(config)
    label = "_".join(f"{n.rpartition('.')[2]}={v}" for n, v in chosen.items()) or "run"
    cells[label.replace("/", "-")] = configuration.to_dict(config)
  return cells


def check_same(folder: Path, config: Mapping[str, Any]) -> None:
  """Raises ValueError where a finished run had another configuration."""
  if results(folder) is None:
    return
  try:
    saved = json.loads(_cell_file(folder).read_text())["config"]
    before = configuration.flatten(configuration.from_saved(saved))
  except (OSError, ValueError, KeyError):
    changed = ["its configuration is not recorded"]
  else:
    now = configuration.flatten(configuration.from_saved(dict(config)))
    changed = [
      f"{name} was {before.get(name)!r}, is {value!r} now"
      for name, value in now.items()
      if before.get(name) != value
    ]
  if changed:
    raise ValueError(
      f"{folder} holds a result of another configuration: {'; '.join(changed)}. Give"
      " another --output, or delete that folder."
    )


def train(folder: Path, config: Mapping[str, Any], cache: Path) -> str:
  """Trains one run in a process of its own; returns "" or what went wrong."""
  cell = _cell_file(folder)
  described = {"workdir": str(folder), "cache": str(cache), "config": config}
  files.write(cell, json.dumps(described))
  log = Path(f"{folder}.log")
  start = time.time()
  code = start_process(cell, log)
  if code == 0:
    print(f"  {time.time() - start:.0f} s", flush=True)
    return ""
  lines = log.read_text(errors="replace").strip().splitlines()
  return f"exit code {code}: {lines[-1] if lines else 'no output'}"


def start_process(cell: Path, log: Path) -> int:
  """Runs the training that a file describes; returns the process's exit code."""
  environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | os.environ
  command = [sys.executable, "-m", "ctx_encoder.apps.commands.sweep", str(cell)]
  with log.open("a") as file:
    return subprocess.run(
      command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False
    ).returncode


def results(folder: Path) -> dict[str, Any] | None:
  """Returns the results of a finished run; None if it has not finished."""
  try:
    return json.loads((folder / "results.json").read_text())["results"]
  except (OSError, ValueError, KeyError):
    return None


def tabulate(
  output: Path, labels: Sequence[str], seeds: Sequence[int], failed: Mapping[str, str]
) -> str:
  """Writes table.md and results.json; returns the table."""
  rows: dict[str, dict[str, Any]] = {}
  cells: dict[str, Any] = {}
  others: dict[str, Any] = {}
  for label in labels:
    found = {seed: results(output / f"{label}_seed{seed}") for seed in seeds}
    done = {seed: systems for seed, systems in found.items() if systems}
    cells[label] = {seed: systems[MODEL] for seed, systems in done.items()}
    rows[label] = _row(list(cells[label].values())) | {"runs": str(len(done))}
    for systems in done.values():
      others |= {name: m for name, m in systems.items() if name != MODEL}
  rows |= {name: _row([measured]) for name, measured in others.items()}
  table = Table.of(rows, COLUMNS | {"runs": Metric("runs")}).markdown()
  written = {"failed": dict(failed), "cells": cells, "baselines": others}
  files.write(output / "table.md", f"{table}\n\n{_NOTE}\n")
  files.write(output / "results.json", json.dumps(written, indent=1) + "\n")
  return f"{table}\n\n{_NOTE}"


def _row(measured: Sequence[Mapping[str, float]]) -> dict[str, Any]:
  """Returns {metric: mean with the lowest and highest} of the runs of a cell."""
  row: dict[str, Any] = {}
  for name in COLUMNS:
    values = [m[name] for m in measured if name in m]
    if len(values) == 1:
      row[name] = values[0]
    elif values:
      row[name] = Interval(statistics.mean(values), min(values), max(values))
  return row


def _cell_file(folder: Path) -> Path:
  """Returns the file with a run's configuration, next to its folder."""
  return folder.with_name(f"{folder.name}.json")


def _train_cell(path: str) -> None:
  """Trains the run that a file describes; the work of the run's own process."""
  from ctx_encoder import xla
  from ctx_encoder.training import trainer

  cell = json.loads(Path(path).read_text())
  xla.cache_in(cell["cache"])
  try:
    trainer.train(configuration.from_saved(cell["config"]), cell["workdir"])
  except (ValueError, OSError, trainer.NonFiniteError) as error:
    sys.exit(str(error))


if __name__ == "__main__":
  _train_cell(sys.argv[1])
