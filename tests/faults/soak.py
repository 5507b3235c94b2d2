"""Trains for many steps: memory and the time of a step must stay constant.

  python tests/faults/soak.py --steps 20000

The networks are tiny, so that everything around them is measured. Images are decoded
again every epoch; there are validations, pictures, curves and checkpoints. From the
second to the last quarter of the run, memory may grow by at most 16 MiB or 2 %, arrays
on the device not at all, and the lower quartile of a step's times, which other programs
affect least, by at most a quarter.
"""

import dataclasses
import itertools
import pathlib
import statistics
import sys
import tempfile
import time

import jax
import pytest
import table

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "support"), str(TESTS), str(TESTS.parent)]

import pictures  # noqa: E402
import tiny  # noqa: E402

from ctx_encoder.training import feed, trainer  # noqa: E402

MIB = 2**20
EVERY = 50  # steps between measurements of memory


@dataclasses.dataclass(frozen=True)
class Quarter:
  """Measurements over a quarter of the steps.

  step, fast: median and lower quartile of a step's time, milliseconds.
  resident, arrays: bytes, and count: of live arrays; medians.
  """

  step: float
  fast: float
  resident: float
  arrays: float
  count: float


def main() -> None:
  parser = table.parser(__doc__)
  parser.add_argument("--steps", type=int, help="20,000 unless given, 2,000 if --quick")
  parser.add_argument("--loader", choices=("pillow", "tf"), default="pillow")
  args = parser.parse_args()
  steps = args.steps or (2000 if args.quick else 20_000)
  began = time.time()
  quarters = soak(steps, args.loader)
  print(f"{time.time() - began:.0f} s")
  print("| quarter | step, median | lower quartile | resident | arrays on the device |")
  print("|---|---|---|---|---|")
  for number, q in enumerate(quarters, 1):
    print(
      f"| {number} | {q.step:.2f} ms | {q.fast:.2f} ms | {q.resident / MIB:.1f} MiB |"
      f" {q.count:.0f}, {q.arrays / MIB:.2f} MiB |"
    )
  _, second, _, last = quarters
  growth = last.resident - second.resident
  flat = {
    "memory": growth <= max(16 * MIB, 0.02 * second.resident),
    "arrays": (last.arrays, last.count) <= (second.arrays, second.count),
    "time": last.fast <= 1.25 * second.fast,
  }
  grown = [name for name, fine in flat.items() if not fine]
  row = table.Row(
    f"Steps of one run, pictures decoded again ({args.loader}), validated and saved",
    steps,
    f"from the second to the last quarter memory {second.resident / MIB:.0f} to"
    f" {last.resident / MIB:.0f} MiB, {second.count:.0f} to {last.count:.0f} arrays,"
    f" {second.fast:.2f} to {last.fast:.2f} ms a step; {', '.join(grown) or 'nothing'}"
    " grew",
    not grown,
  )
  table.finish([row], args.output)


def soak(steps: int, loader: str) -> list[Quarter]:
  """Trains for so many steps; returns the measurements of each quarter."""
  times: list[float] = []
  memory: list[tuple[int, int, int]] = []
  dispatches = feed.dispatches

  def measured(*args, **kwargs):
    for end, dispatch in dispatches(*args, **kwargs):
      times.append(time.perf_counter())
      if end % EVERY == 0:
        memory.append((resident(), *on_device()))
      yield end, dispatch

  with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
    tiny.use_mosaics(patch)
    patch.setattr(feed, "dispatches", measured)
    pictures.fill_folder(pathlib.Path(folder, "pictures"), 500)
    config = tiny.config(
      data__path=str(pathlib.Path(folder, "pictures")),
      data__cache="none",
      data__placement="host",
      data__loader=loader,
      num_steps=steps,
      ema_decay=0.9,
      eval__every_epochs=5,  # 5 of 100 steps
      eval__batch_size=50,
      checkpoint__every_steps=200,
      log__every_steps=10,
    )
    trainer.train(config, pathlib.Path(folder, "run"))
  return [quarter(times, memory, part) for part in range(4)]


def quarter(times: list[float], memory: list[tuple], part: int) -> Quarter:
  taken = [1000 * (b - a) for a, b in itertools.pairwise(times)]
  fast, median, _ = statistics.quantiles(share(taken, part), n=4)
  return Quarter(
    median,
    fast,
    *(statistics.median(column) for column in zip(*share(memory, part), strict=True)),
  )


def share(values: list, part: int) -> list:
  return values[len(values) * part // 4 : len(values) * (part + 1) // 4]


def on_device() -> tuple[int, int]:
  """Returns the bytes and the number of live arrays."""
  arrays = jax.live_arrays()  # not stored, since that would keep them alive
  return sum(x.nbytes for x in arrays), len(arrays)


def resident() -> int:
  """Returns the resident memory of this process, in bytes."""
  pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
  return int(pages) * 4096


if __name__ == "__main__":
  main()
