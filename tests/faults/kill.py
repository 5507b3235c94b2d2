"""Kills a run at random moments, also during saves, and resumes it.

  python tests/faults/kill.py --kills 30

A run of a small network is killed with SIGKILL and started again, so many times, and
then ends normally. In turn it is killed while it starts, while it trains, and while a
checkpoint is written; the moment is random. Every start must resume from the last
finished checkpoint, and the run must end as one that was never killed, bit for bit.

Checkpoints are written in the background, and a save waits for the one before. So a
kill loses the steps since the last finished save: at most those between three saves.
"""

import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import table

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from ctx_encoder import config as configuration  # noqa: E402
from ctx_encoder.training import assembly  # noqa: E402
from ctx_encoder.training.checkpoint import Checkpoints  # noqa: E402

SAVE_EVERY = 10
PATIENCE = 300  # seconds that a start may take
MOMENTS = ("start", "train", "save")
FLAGS = {
  "data.image_size": 16,
  "discriminator.depth": 1,
  "discriminator.width": 0.03,
  "model.width": 0.03,
  "batch_size": 4,
  "eval.batch_size": 64,
  "checkpoint.every_steps": SAVE_EVERY,
  "log.every_steps": 1,
}


def main() -> None:
  parser = table.parser(__doc__)
  parser.add_argument("--kills", type=int, help="30 unless given, 6 with --quick")
  parser.add_argument("--steps", type=int, help="20 a kill unless given")
  args = parser.parse_args()
  kills = args.kills or (6 if args.quick else 30)
  steps = args.steps or 20 * kills
  with tempfile.TemporaryDirectory() as folder:
    rows = [try_out(pathlib.Path(folder), kills, steps, random.Random(args.seed))]
  table.finish(rows, args.output)


def try_out(
  folder: pathlib.Path, kills: int, steps: int, draw: random.Random
) -> table.Row:
  run = Run(folder / "killed", steps)
  lost, in_saves, wrong = [], 0, []
  startup = 5.0  # seconds until the first step, as the last start took
  for number in range(1, kills + 1):
    moment = MOMENTS[number % 3]
    began, start = time.time(), run.saved()
    process = run.start()
    if moment == "start":
      time.sleep(draw.uniform(0, startup))
    else:
      wait_for(run.trains, process)
      startup = time.time() - began
      if moment == "train":
        time.sleep(draw.uniform(0, 2))
      else:
        wait_for(lambda began=began: run.saving(began), process)
        time.sleep(draw.uniform(0, 0.2))
    if process.poll() is not None:
      wrong.append(f"it ended with {process.returncode} after {number} kills")
      print(run.output()[-2000:], flush=True)
      break
    process.kill()
    process.wait()
    in_saves += run.saving(began)
    if start and moment != "start" and run.resumed() != start:
      wrong.append(f"it resumed at {run.resumed()} and not at {start}")
    lost.append(run.made() - run.saved() if run.trains() else 0)
    if run.saved() < start or lost[-1] > 2 * SAVE_EVERY:
      wrong.append(f"it was at {run.made()}, and {run.saved()} is saved")
    print(
      f"kill {number} ({moment}): {time.time() - began:.1f} s, step {run.made()},"
      f" saved {run.saved()}",
      flush=True,
    )
  uncut = Run(folder / "uncut", steps)
  for whole in (run, uncut):
    if whole.start().wait(timeout=2 * PATIENCE):
      wrong.append(f"{whole.workdir.name}: {whole.output()[-300:]}")
  wrong += differences(uncut, run)
  return table.Row(
    f"SIGKILL of a run of {steps} steps, saved every {SAVE_EVERY}, at random moments",
    len(lost),
    f"{in_saves} of them during a save; lost {sum(lost)} steps in all, {max(lost)} at"
    f" the most; in the end {'; '.join(wrong) or 'all arrays and the log are equal'}",
    not wrong,
  )


class Run:
  """A run in its own folder."""

  def __init__(
    self,
    workdir: pathlib.Path,
    steps: int,
    log: pathlib.Path | None = None,
    flags: dict | None = None,
  ):
    self.workdir, self.steps, self.flags = workdir, steps, FLAGS | (flags or {})
    self.checkpoints = Checkpoints(workdir / "checkpoints")
    self._log = log or workdir.with_suffix(".log")

  def start(self) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "launch.py")]
    command += [f"--config={ROOT / 'configs/quickstart.py'}"]
    command += [f"--workdir={self.workdir}", f"--config.num_steps={self.steps}"]
    command += [f"--config.{name}={value}" for name, value in self.flags.items()]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "JAX_PLATFORMS": "cpu"}
    with self._log.open("w") as log:
      return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

  def output(self) -> str:
    """Returns the output of the last start."""
    return self._log.read_text()

  def trains(self) -> bool:
    return "First step after" in self.output()

  def resumed(self) -> int | None:
    found = re.search(r"Resuming at step (\d+)", self.output())
    return int(found[1]) if found else None

  def saved(self) -> int:
    return self.checkpoints.latest() or 0

  def saving(self, since: float) -> bool:
    """Returns whether this start is writing a checkpoint."""
    unfinished = self.workdir.glob("checkpoints/*.saving*")
    return any(changed(folder) > since for folder in unfinished)

  def made(self) -> int:
    """Returns the last step in the log."""
    return max((line["step"] for line in self.lines()), default=0)

  def lines(self) -> list[dict]:
    path = self.workdir / "metrics.jsonl"
    texts = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(text) for text in texts if text.endswith("\n")]

  def measurements(self) -> dict[int, dict]:
    """Returns the lines of training steps, without their times, by step."""
    return {
      line["step"]: {k: v for k, v in line.items() if k != "seconds"}
      for line in self.lines()
      if "loss/total" in line
    }


def changed(path: pathlib.Path) -> float:
  """Returns when a file or folder was last changed; 0 = it does not exist."""
  try:
    return path.stat().st_ctime
  except FileNotFoundError:
    return 0.0


def wait_for(condition, process: subprocess.Popen) -> None:
  """Waits until a condition holds or the process has ended."""
  deadline = time.time() + PATIENCE
  while not condition() and process.poll() is None:
    if time.time() > deadline:
      process.kill()
      raise TimeoutError(f"Nothing happened for {PATIENCE} s.")
    time.sleep(0.005)


def arrays(killed: Run, step: int) -> dict[str, np.ndarray]:
  """Returns {name: array} of a checkpoint; raises as `restore`."""
  config = configuration.from_saved(killed.checkpoints.read_config(step))
  run = assembly.run(config)
  optimizers = run.optimizers(run.generator, step)
  abstract = jax.eval_shape(lambda: run.init(jax.random.key(0), optimizers))
  state, _ = killed.checkpoints.restore(abstract, step)
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}


def unreadable(run: Run, step: int) -> str | None:
  """Returns why a checkpoint cannot be restored; None where it can."""
  try:
    arrays(run, step)
  except (ValueError, OSError) as error:
    return str(error)
  return None


def differences(one: Run, other: Run) -> list[str]:
  """Returns the differences between the ends of two runs."""
  states, logs = [], []
  for run in (one, other):
    states.append(arrays(run, run.steps))
    logs.append([{k: v for k, v in x.items() if k != "seconds"} for x in run.lines()])
  found = [
    f"{name} differs"
    for name, value in states[0].items()
    if not np.array_equal(value, states[1][name])
  ]
  return found if logs[0] == logs[1] else [*found, "the logs differ"]


if __name__ == "__main__":
  main()
