"""Seconds from the command to the first step, with a cold and with a warm cache.

  python benchmarks/startup.py --config configs/photos_block.py:quick

Starts launch.py each time, reads the line with the time of its first step, and ends it.
"""

import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import harness

ROOT = pathlib.Path(__file__).parent.parent


def main() -> None:
  parser = harness.parser(__doc__)
  parser.set_defaults(rounds=3)
  parser.add_argument("--config", default="configs/photos_block.py:quick")
  parser.add_argument("--data", default="", help="folder of images")
  args = parser.parse_args()

  figures = {}
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder, "run")
    for state in ("cold", "warm"):
      figures[state] = []
      for _ in range(args.rounds):
        if state == "cold":
          shutil.rmtree(workdir, ignore_errors=True)
        shutil.rmtree(workdir / "checkpoints", ignore_errors=True)
        figures[state].append(first_step(args, workdir))
  harness.print_machine()
  print(f"{args.config}: seconds to the end of the first step")
  print(f"{'':5} {'in the output':>17} {'from the command':>17}")
  for state, pairs in figures.items():
    reported, waited = (
      statistics.median(column) for column in zip(*pairs, strict=True)
    )
    print(f"{state:5} {reported:17.1f} {waited:17.1f}")
  harness.write(args, {"seconds": figures})


def first_step(args, workdir: pathlib.Path) -> tuple[float, float]:
  """Returns the seconds that the line reports, and those until it appeared."""
  command = [sys.executable, "launch.py", f"--config={args.config}"]
  command += [f"--workdir={workdir}", f"--config.data.path={args.data}"]
  start = time.perf_counter()
  with subprocess.Popen(
    command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
  ) as process:
    for line in process.stderr or ():
      if match := re.search(r"First step after ([\d.]+) s", line):
        waited = time.perf_counter() - start
        process.kill()
        return float(match[1]), waited
  raise RuntimeError(f"The run ended before its first step: {' '.join(command)}")


if __name__ == "__main__":
  main()
