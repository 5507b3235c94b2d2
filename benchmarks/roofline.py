"""The best that published peaks allow, from programs compiled by `aot.py`.

  python benchmarks/aot.py --targets v5e-1 h100-8 --output aot.json
  python benchmarks/roofline.py aot.json

A program takes at least the longest of

  compute   operations / peak
  memory    bytes read and written / bandwidth
  network   all-reduce: 2 b (n - 1) / n / link; other collectives: b (n - 1) / n / link

with b bytes of results on n chips in a ring, nothing lost between kernels. These are
the compiler's counts and published peaks, no measurement. GPU compilers report no
operations; theirs are counted from the networks' tables (`train_step.py`).
"""

import argparse
import json
import os
import pathlib
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import aot
import chips
import train_step

from ctx_encoder.training import assembly

_PHOTOS = 7038  # in gan-getting-started's photo_jpg
_EPOCHS = 200


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("files", nargs="+", help="JSON files of aot.py")
  args = parser.parse_args()
  print(
    f"{'target':>9} {'network':>9} {'type':>8} {'sharding':>10} {'program':>10}"
    f" {'images':>6} {'compute':>8} {'memory':>8} {'network':>8} ms {'images/s':>9}"
    f" {'200 epochs':>10}"
  )
  for file in args.files:
    for row in json.loads(pathlib.Path(file).read_text())["rows"]:
      if not row["error"]:
        print(line(row, seconds(row)))


def seconds(row: dict[str, Any]) -> dict[str, float]:
  """Returns the least seconds of a program by what limits it."""
  name, _, count = row["target"].partition("-")
  chip, n = chips.CHIPS[name], int(count)
  exchanged = sum(
    (2 if kind.startswith("all-reduce") else 1) * found["bytes"]
    for kind, found in row["collectives"].items()
  )
  return {
    "compute": (row["flops"] or flops(row)) / chip.flops[row["dtype"]],
    "memory": row["bytes"] / chip.bandwidth,
    "network": exchanged * (n - 1) / n / chip.link,
  }


def flops(row: dict[str, Any]) -> float:
  """Returns the operations of a program on one chip, from the networks' tables."""
  names = ("generator", "dtype", "sharding", "image_size", "width")
  run = assembly.run(aot.settings(*(row[name] for name in names)))
  if row["program"] in ("step", "dispatch"):
    return train_step.useful_flops(run, row["images"])
  return train_step.inference_flops(run, row["images"])


def line(row: dict[str, Any], least: dict[str, float]) -> str:
  """Returns a row of the table; the time of an epoch is that of training steps."""
  chips_used = int(row["target"].partition("-")[2])
  rate = row["images"] * chips_used / max(least.values())
  epochs = ""
  if row["program"] in ("step", "dispatch"):
    epochs = f"{_EPOCHS * _PHOTOS / rate / 60:6.1f} min"
  times = " ".join(f"{1e3 * value:8.2f}" for value in least.values())
  return (
    f"{row['target']:>9} {row['generator']:>9} {row['dtype']:>8} {row['sharding']:>10}"
    f" {row['program']:>10} {row['images']:6} {times}    {rate:9,.0f} {epochs:>10}"
  )


if __name__ == "__main__":
  main()
