"""The flags that the scripts of this folder share, and the table that they print."""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
  """One kind of fault: what was done, how often, and what came of it."""

  tried: str
  times: int
  outcome: str
  passed: bool


def parser(description: str) -> argparse.ArgumentParser:
  made = argparse.ArgumentParser(
    description=description, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  made.add_argument("--quick", action="store_true", help="a tenth of it or less")
  made.add_argument("--seed", type=int, default=0, help="of all that is random")
  made.add_argument("--output", type=pathlib.Path, help="write the rows as JSON")
  return made


def finish(rows: Sequence[Row], output: pathlib.Path | None) -> None:
  """Prints and writes the rows; ends the process, with 1 where one has failed."""
  print(markdown(rows), flush=True)
  if output:
    output.write_text(json.dumps([row._asdict() for row in rows]))
  sys.exit(not all(row.passed for row in rows))


def markdown(rows: Sequence[Row]) -> str:
  lines = ["| tried | times | what came of it |", "|---|---|---|"]
  for row in rows:
    outcome = row.outcome if row.passed else f"FAILED: {row.outcome}"
    lines.append(f"| {row.tried} | {row.times:,} | {outcome} |")
  return "\n".join(lines)
