"""Kills a run at random moments, saves included, and sees whether it comes through.

  python tests/faults/kill.py --kills 30

A run of a small network is killed with SIGKILL and started again until it has been
killed that often, and then left to end. Every start has to go on from the last whole
checkpoint, and the end has to be that of a run that was never killed, bit for bit.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from ctx_encoder import build  # noqa: E402
from ctx_encoder import config as configuration  # noqa: E402
from ctx_encoder.checkpoint import Checkpoints  # noqa: E402

SAVE_EVERY = 10


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--kills", type=int, default=30)
  parser.add_argument("--steps", type=int, default=3000)
  parser.add_argument("--seed", type=int, default=0, help="of the moments")
  args = parser.parse_args()
  draw = random.Random(args.seed)
  with tempfile.TemporaryDirectory() as folder:
    uncut, killed = pathlib.Path(folder, "uncut"), pathlib.Path(folder, "killed")
    began = time.time()
    assert start(uncut, args.steps, folder).wait() == 0
    whole = time.time() - began
    print(f"The uncut run took {whole:.0f} s.", flush=True)
    lost = []
    for number in range(1, args.kills + 1):
      process = start(killed, args.steps, folder)
      # Somewhere between its start and a thirtieth of the steps after its first.
      delay = draw.uniform(0, STARTUP) + draw.uniform(0, whole / args.kills)
      try:
        code = process.wait(timeout=delay)
        assert code == 0, f"A run ended with {code}: see {folder}"
        print(f"The run was done after {number - 1} kills; more --steps allow more.")
        break
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
      saved = Checkpoints(killed / "checkpoints").latest() or 0
      made = last_step(killed)
      lost.append(made - saved)
      print(
        f"kill {number}: after {delay:.1f} s, step {made}, saved {saved}", flush=True
      )
      assert made - saved <= SAVE_EVERY + 1, "More was lost than since the last save."
    assert start(killed, args.steps, folder).wait() == 0
    different = [
      name
      for name, (one, other) in pairs(uncut, killed, args.steps).items()
      if not np.array_equal(one, other)
    ]
  print(
    f"{len(lost)} kills; steps lost: {sum(lost)} in all, {max(lost)} at the most;"
    f" arrays that differ in the end: {different or 'none'}"
  )
  sys.exit(bool(different))


STARTUP = 6.0  # seconds, about


def start(workdir: pathlib.Path, steps: int, folder: str) -> subprocess.Popen:
  flags = {
    "data.image_size": 16,
    "discriminator.depth": 1,
    "discriminator.width": 0.03,
    "model.width": 0.03,
    "batch_size": 4,
    "num_steps": steps,
    "eval.every_epochs": 1000,
    "checkpoint.every_steps": SAVE_EVERY,
    "log.every_steps": 1,
  }
  command = [sys.executable, str(ROOT / "launch.py")]
  command += [f"--config={ROOT / 'configs/quickstart.py'}", f"--workdir={workdir}"]
  command += [f"--config.{name}={value}" for name, value in flags.items()]
  with pathlib.Path(folder, "log").open("a") as log:
    return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)


def last_step(workdir: pathlib.Path) -> int:
  """Returns the last step that the log tells of."""
  path = workdir / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  for line in reversed(lines):
    try:
      return json.loads(line)["step"]
    except ValueError:
      continue  # cut off
  return 0


def pairs(one: pathlib.Path, other: pathlib.Path, step: int) -> dict:
  """Returns {array: its values in both runs}."""
  found = []
  for workdir in (one, other):
    checkpoints = Checkpoints(workdir / "checkpoints")
    config = configuration.from_saved(checkpoints.read_config(step))
    run = build.run(config, total_steps=step)
    abstract = jax.eval_shape(
      lambda run=run, config=config: run.init(0, average=config.ema_decay > 0)
    )
    state, _ = checkpoints.restore(abstract, step)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    found.append({jax.tree_util.keystr(p): np.asarray(x) for p, x in leaves})
  return {name: (value, found[1][name]) for name, value in found[0].items()}


if __name__ == "__main__":
  main()
