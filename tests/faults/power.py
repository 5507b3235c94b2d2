"""Cuts the power of a run at random moments, and resumes what is left on the disk.

  python tests/faults/power.py --cuts 30       # as root, for mount

A run of a small network saves every few steps into a file system of its own, an image
mounted on loopback. At a random moment, every other time during a save, the run is
stopped and the image is copied: what has not been flushed to disk by then is not in the
copy, as after a power loss. The copy is mounted, which replays its journal, and the run
is resumed there. It must find a checkpoint, have lost at most the steps between three
saves, as in `kill`, and continue as a run that was never cut, bit for bit. Then the
stopped run goes on.

File systems: ext4, XFS and btrfs, where mkfs is installed. Linux mounts a copy of a
mounted btrfs since version 6.7.
"""

import contextlib
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import kill
import numpy as np
import table

from ctx_encoder import config as configuration
from ctx_encoder import xla
from ctx_encoder.training import trainer

FLAGS = {"data.validation_fraction": 0}  # validations take time and save nothing
MAKE = {"ext4": ["mkfs.ext4", "-q", "-F"]}
MAKE |= {name: [f"mkfs.{name}", "-q", "-f"] for name in ("xfs", "btrfs")}
SIZE = 400 * 2**20  # of the image, sparse; XFS refuses less than 300 MiB
LONGEST = 250  # steps of a run before it is started anew
UNCUT = LONGEST + 50


def main() -> None:
  parser = table.parser(__doc__)
  parser.add_argument("--cuts", type=int, help="30 a file system, 3 with --quick")
  parser.add_argument("--systems", nargs="+", choices=MAKE, default=list(MAKE))
  args = parser.parse_args()
  cuts = args.cuts or (3 if args.quick else 30)
  draw = random.Random(args.seed)
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(folder)
    (place / "cache").mkdir()
    xla.cache_in(place / "cache")
    systems = [name for name in args.systems if shutil.which(MAKE[name][0])]
    if not systems or not can_mount(place, systems[0]):
      print("power: no file system can be made and mounted here; root is needed")
      table.finish([], args.output)
    uncut = kill.Run(place / "uncut", UNCUT, flags=FLAGS | {"checkpoint.keep": 100})
    uncut.workdir.mkdir()
    (uncut.workdir / "cache").symlink_to(place / "cache")
    if uncut.start().wait():
      sys.exit(uncut.output()[-2000:])
    for name in systems:
      rows.append(try_out(place, name, cuts, uncut, draw))
  table.finish(rows, args.output)


def try_out(
  place: pathlib.Path, system: str, cuts: int, uncut: kill.Run, draw: random.Random
) -> table.Row:
  lost, in_saves, wrong = [], 0, []
  while len(lost) < cuts and not wrong:
    with disk(place, system) as image:
      run = kill.Run(place / "disk" / "run", UNCUT, log=place / "log", flags=FLAGS)
      run.workdir.mkdir()
      (run.workdir / "cache").symlink_to(place / "cache")
      os.sync()
      process = run.start()
      try:
        kill.wait_for(run.saved, process)
        while len(lost) < cuts and run.made() < LONGEST and process.poll() is None:
          process.send_signal(signal.SIGCONT)
          began = time.time()
          time.sleep(draw.uniform(0.1, 0.6))
          if len(lost) % 2:
            kill.wait_for(lambda run=run, began=began: run.saving(began), process)
            time.sleep(draw.uniform(0, 0.1))
          process.send_signal(signal.SIGSTOP)
          in_saves += run.saving(began)
          made, visible = run.made(), run.saved()
          copied(image, place / "copied")
          with mounted(place / "copied", place / "copy", system):
            steps, problems = resumed(place / "copy" / "run", made, uncut)
          lost.append(made - steps)
          wrong += problems
          print(
            f"{system} cut {len(lost)}: step {made}, last checkpoint {visible},"
            f" resumed at {steps} {problems or ''}",
            flush=True,
          )
        if process.poll() is not None:
          wrong.append(f"the run ended: {run.output()[-500:]}")
      finally:
        process.kill()
        process.wait()
  return table.Row(
    f"power loss of a run that saves every {kill.SAVE_EVERY} steps, on {system}",
    len(lost),
    f"{in_saves} of them during a save; lost {sum(lost)} steps in all, {max(lost)} at"
    " the most; each resumed as a run that was never cut, bit for bit;"
    f" {len(wrong)} otherwise",
    not wrong,
  )


def resumed(workdir: pathlib.Path, made: int, uncut: kill.Run) -> tuple[int, list[str]]:
  """Resumes a run for some steps; returns where from, and what is wrong."""
  steps = made - made % kill.SAVE_EVERY + 2 * kill.SAVE_EVERY
  run, said = kill.Run(workdir, steps), []
  config = configuration.read(str(kill.ROOT / "configs/quickstart.py"))
  config.update(run.flags | FLAGS | {"num_steps": steps})
  try:
    trainer.train(config, workdir, say=said.append)
  except (ValueError, OSError) as error:
    return 0, [f"it was not resumed: {error}"]
  found = re.search(r"Resuming at step (\d+)", "\n".join(said))
  start, wrong = int(found[1]) if found else 0, []
  if not start:
    wrong.append("there was no checkpoint")
  if made - start > 2 * kill.SAVE_EVERY:
    wrong.append(f"{made - start} steps are lost")
  expected = kill.arrays(uncut, steps)
  wrong += [
    f"{name} differs"
    for name, value in kill.arrays(run, steps).items()
    if not np.array_equal(value, expected[name])
  ]
  measured = uncut.measurements()
  if run.measurements() != {step: measured[step] for step in range(1, steps + 1)}:
    wrong.append("metrics.jsonl differs")
  return start, wrong


# Disks


def can_mount(place: pathlib.Path, system: str) -> bool:
  try:
    with disk(place, system):
      return True
  except subprocess.CalledProcessError:
    return False


@contextlib.contextmanager
def disk(place: pathlib.Path, system: str) -> Iterator[pathlib.Path]:
  """Makes a file system and mounts it on `place`/disk; yields its image."""
  image = place / "image"
  image.unlink(missing_ok=True)
  with image.open("wb") as file:
    file.truncate(SIZE)
  subprocess.run([*MAKE[system], str(image)], check=True, capture_output=True)
  with mounted(image, place / "disk", system):
    yield image


@contextlib.contextmanager
def mounted(image: pathlib.Path, folder: pathlib.Path, system: str) -> Iterator[None]:
  folder.mkdir(exist_ok=True)
  options = "loop,nouuid" if system == "xfs" else "loop"  # a copy has the same UUID
  command = ["mount", "-o", options, str(image), str(folder)]
  subprocess.run(command, check=True, capture_output=True)
  try:
    yield
  finally:
    subprocess.run(["umount", str(folder)], check=True)


def copied(image: pathlib.Path, copy: pathlib.Path) -> None:
  """Copies the image of a mounted file system as it is at one moment."""
  while True:
    subprocess.run(["cp", "--sparse=always", str(image), str(copy)], check=True)
    # The kernel may have written something in the meantime.
    if not subprocess.run(["cmp", "-s", str(image), str(copy)], check=False).returncode:
      return


if __name__ == "__main__":
  main()
