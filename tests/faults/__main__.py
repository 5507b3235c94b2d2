"""Tries every kind of fault, and prints one table.

  python tests/faults --quick      # some minutes
  python tests/faults              # half an hour or more on two cores

Each script of this folder is run in a process of its own, one after the other, and can
be run alone.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

import table

HERE = pathlib.Path(__file__).parent
SCRIPTS = ("kill", "power", "checkpoints", "readers", "soak")


def main() -> None:
  parser = table.parser(__doc__)
  parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=SCRIPTS)
  args = parser.parse_args()
  rows = []
  for name in args.only:
    began = time.time()
    rows += run(name, ["--quick"] * args.quick + ["--seed", str(args.seed)])
    print(f"{name}: {time.time() - began:.0f} s\n", flush=True)
  table.finish(rows, args.output)


def run(name: str, flags: list[str]) -> list[table.Row]:
  """Returns the rows of a script; one that failed, where it came to none."""
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder, "rows.json")
    command = [sys.executable, str(HERE / f"{name}.py"), *flags]
    code = subprocess.run([*command, "--output", str(output)], check=False).returncode
    if not output.exists():
      return [table.Row(f"{name}.py", 1, f"ended with {code}", False)]
    return [table.Row(**row) for row in json.loads(output.read_text())]


if __name__ == "__main__":
  main()
