"""Damages checkpoints in many ways, and fills the disk while they are written.

  python tests/faults/checkpoints.py

Damage: some file of the latest of three checkpoints is truncated, emptied, flipped in a
bit, overwritten, lengthened or deleted; or half of all files, a folder, or the complete
checkpoint. The error must name it, the checkpoint before must be used, and earlier ones
must be unchanged. Only the exact arrays of a checkpoint may be restored.

Full disk: a tmpfs of a few MiB is mounted, which only root may, and filled up to a
random rest; elsewhere the size of files is limited, which is another error (EFBIG), and
no run is tried. A save or a run must succeed or end with one clear line, and earlier
checkpoints must be intact.
"""

import contextlib
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import jax
import kill
import numpy as np
import table

from ctx_encoder import config as configuration
from ctx_encoder.training import assembly
from ctx_encoder.training.checkpoint import Checkpoints, DamagedError

SIZE = 8 * 2**20  # of the small disk, bytes

State = dict[str, np.ndarray]


def main() -> None:
  args = table.parser(__doc__).parse_args()
  draw = random.Random(args.seed)
  damages, saves, runs = (60, 10, 2) if args.quick else (300, 60, 8)
  with tempfile.TemporaryDirectory() as folder:
    place = pathlib.Path(folder)
    made = make(place / "whole")
    rows = [damage(made, place, damages, draw)]
    with small_disk(place / "disk") as mounted:
      rows.append(full_while_saving(made, place / "disk", saves, draw, mounted))
      if mounted:
        rows.append(full_while_training(place / "disk", place, runs, draw))
  table.finish(rows, args.output)


# What is saved


def states() -> Iterator[tuple[int, dict]]:
  """Yields three states of a small network and its optimizers, by step."""
  config = configuration.default()
  config.model.width = config.discriminator.width = 0.02
  config.ema_decay = 0.9
  run = assembly.run(config)
  optimizers = run.optimizers(run.generator, 1)
  create = jax.jit(lambda: run.init(jax.random.key(0), optimizers))
  for step in (10, 20, 30):
    noise = np.random.default_rng(step)
    state = jax.tree.map(
      lambda x, noise=noise: np.asarray(
        x + noise.normal(size=x.shape) if x.dtype.kind == "f" else x
      ).astype(x.dtype),
      create(),
    )
    yield step, state


def make(folder: pathlib.Path) -> dict:
  """Writes three checkpoints; returns where, and the states by step."""
  made = dict(states())
  with Checkpoints(folder, keep=3) as checkpoints:
    for step, state in made.items():
      checkpoints.save(step, state, config={"seed": step}, metrics={"loss": step})
  return {"folder": folder, "states": made}


def equal(one, other) -> bool:
  return all(
    np.array_equal(a, b)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  )


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  return {str(p.relative_to(folder)): p.read_bytes() for p in files_of(folder)}


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
  return [path for path in sorted(folder.rglob("*")) if path.is_file()]


# Damage


def truncate(path: pathlib.Path, draw: random.Random) -> None:
  content = path.read_bytes()
  path.write_bytes(content[: draw.randrange(len(content))])


def empty(path: pathlib.Path, draw: random.Random) -> None:
  path.write_bytes(b"")


def flip(path: pathlib.Path, draw: random.Random) -> None:
  content = bytearray(path.read_bytes())
  content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
  path.write_bytes(content)


def overwrite(path: pathlib.Path, draw: random.Random) -> None:
  content = bytearray(path.read_bytes())
  start = draw.randrange(len(content))
  size = min(draw.randrange(1, 4096), len(content) - start)
  content[start : start + size] = (
    bytes(size) if draw.random() < 0.5 else os.urandom(size)
  )
  path.write_bytes(content)


def lengthen(path: pathlib.Path, draw: random.Random) -> None:
  with path.open("ab") as file:
    file.write(draw.randbytes(draw.randrange(1, 1000)))


def delete(path: pathlib.Path, draw: random.Random) -> None:
  path.unlink()


def delete_half(step: pathlib.Path, draw: random.Random) -> None:
  files = files_of(step)
  for path in draw.sample(files, len(files) // 2):
    path.unlink()


def delete_folder(step: pathlib.Path, draw: random.Random) -> None:
  folders = [path for path in sorted(step.rglob("*")) if path.is_dir()]
  shutil.rmtree(draw.choice(folders))


def delete_all(step: pathlib.Path, draw: random.Random) -> None:
  for path in step.iterdir():
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove(step: pathlib.Path, draw: random.Random) -> None:
  shutil.rmtree(step)


OF_A_FILE = (truncate, empty, flip, overwrite, lengthen, delete)
OF_A_CHECKPOINT = (delete_half, delete_folder, delete_all, remove)


def damage(
  made: dict, place: pathlib.Path, times: int, draw: random.Random
) -> table.Row:
  """Damages the last checkpoint, tries to restore it, and repairs it."""
  copy, all_states = place / "copy", made["states"]
  shutil.copytree(made["folder"], copy)
  files = files_of(copy / "30")
  wrong, detected, harmless = [], 0, 0
  for number in range(times):
    if number % 5:
      kind = OF_A_FILE[number % len(OF_A_FILE)]
      path = draw.choice([path for path in files if path.stat().st_size])
    else:
      kind, path = draw.choice(OF_A_CHECKPOINT), copy / "30"
    kind(path, draw)
    what = f"{kind.__name__} {path.relative_to(copy)}"
    state, _ = Checkpoints(copy).restore(all_states[10])
    if equal(state, all_states[30]):
      harmless += 1  # a byte of white space
      if path.name != "record.json":
        wrong.append(f"{what}: it was not noticed")
    elif not equal(state, all_states[20]):
      wrong.append(f"{what}: other arrays came back")
    else:
      detected += 1
      wrong += [f"{what}: {problem}" for problem in unnamed(copy, path, kind, made)]
    for step in (10, 20):
      if not equal(
        Checkpoints(copy).restore(all_states[10], step)[0], all_states[step]
      ):
        wrong.append(f"{what}: step {step} is not as it was")
    shutil.rmtree(copy / "30", ignore_errors=True)
    shutil.copytree(made["folder"] / "30", copy / "30")
  print("\n".join(wrong), flush=True)
  return table.Row(
    f"Damage of {len(OF_A_FILE) + len(OF_A_CHECKPOINT)} kinds to a checkpoint of"
    f" {len(files)} files",
    times,
    f"{detected} detected, named, and the one before used; {harmless} in white space;"
    f" {len(wrong)} otherwise",
    not wrong,
  )


def unnamed(
  copy: pathlib.Path, path: pathlib.Path, kind: Callable, made: dict
) -> list[str]:
  """Returns what is wrong with the message for a damaged checkpoint."""
  missing = FileNotFoundError if kind is remove else DamagedError
  try:
    Checkpoints(copy).restore(made["states"][10], 30)
  except missing as error:
    message = str(error)
    of_file = kind in OF_A_FILE and path.name not in message
    clear = "30" in message and "\n" not in message and not of_file
    return [] if clear else [f"the message is {message}"]
  except Exception as error:
    return [f"{type(error).__name__}: {error}"]
  return ["it was restored"]


# A full disk


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[bool]:
  """Mounts a tmpfs where that is allowed; yields whether it is."""
  folder.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
  allowed = shutil.which("mount") is not None
  mounted = allowed and not subprocess.run(command, capture_output=True).returncode
  try:
    yield mounted
  finally:
    if mounted:
      subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def filled(folder: pathlib.Path, rest: int) -> Iterator[None]:
  """Fills the disk of a folder up to `rest` bytes."""
  ballast = folder / "ballast"
  ballast.write_bytes(b"")
  system = os.statvfs(folder)
  ballast.write_bytes(bytes(max(0, system.f_bavail * system.f_frsize - rest)))
  try:
    yield
  finally:
    ballast.unlink()


@contextlib.contextmanager
def files_limited(folder: pathlib.Path, rest: int) -> Iterator[None]:
  """Makes writes beyond `rest` bytes of a file fail."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (rest, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def size_of(folder: pathlib.Path) -> int:
  return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def full_while_saving(
  made: dict, disk: pathlib.Path, times: int, draw: random.Random, mounted: bool
) -> table.Row:
  """Saves a fourth checkpoint with random room."""
  limit = filled if mounted else files_limited
  largest = int(1.3 * size_of(made["folder"] / "30"))
  states, copy = made["states"], disk / "copy"
  failed, wrong = 0, []
  for _ in range(times):
    shutil.copytree(made["folder"], copy)
    rest = draw.randrange(largest)
    checkpoints = Checkpoints(copy, keep=3)
    try:
      with limit(disk, rest):
        checkpoints.save(40, states[10], config={})
        checkpoints.wait()
    except OSError as error:
      failed += 1
      if "\n" in str(error):
        wrong.append(f"{rest} bytes: the message is {error}")
    except Exception as error:
      wrong.append(f"{rest} bytes: {type(error).__name__}: {error}")
    with contextlib.suppress(OSError):
      checkpoints.close()
    left = Checkpoints(copy).steps()
    kept = [20, 30, 40] if 40 in left else [10, 20, 30]
    if left != kept:
      wrong.append(f"{rest} bytes: steps {left} are left")
    for step in left:
      wanted = states[10] if step == 40 else states[step]
      if not equal(Checkpoints(copy).restore(states[10], step)[0], wanted):
        wrong.append(f"{rest} bytes: step {step} is not as it was")
    shutil.rmtree(copy)
  print("\n".join(wrong), flush=True)
  how = "a full tmpfs (ENOSPC)" if mounted else "RLIMIT_FSIZE (EFBIG)"
  return table.Row(
    f"Saving onto a disk with random room left: {how}",
    times,
    f"{failed} failed with an OSError of one line, {times - failed} had room; earlier"
    f" checkpoints are intact; {len(wrong)} otherwise",
    not wrong,
  )


def full_while_training(
  disk: pathlib.Path, place: pathlib.Path, times: int, draw: random.Random
) -> table.Row:
  """Runs launch.py until the disk is full, makes room, and goes on."""
  workdir = disk / "run"
  workdir.mkdir()
  (place / "cache").mkdir()
  (workdir / "cache").symlink_to(place / "cache")
  wrong, said = [], set()
  steps = 30
  started = kill.Run(workdir, steps, log=place / "log")
  if started.start().wait():
    wrong.append(started.output())
  room = 2 * size_of(workdir / "checkpoints" / str(steps))
  for _ in range(times):
    before = Checkpoints(workdir / "checkpoints").steps()
    run = kill.Run(workdir, steps + 2000, log=place / "log")
    with filled(disk, draw.randrange(room)):
      code = run.start().wait(timeout=kill.PATIENCE)
    output = run.output()
    last = output.splitlines()[-1]
    said.add(last.replace(str(place), ""))
    if code != 1 or "Traceback" in output or not last.startswith("launch.py: "):
      wrong.append(f"{code}: {output[-2000:]}")
    after = Checkpoints(workdir / "checkpoints")
    if not after.steps() or after.latest() < before[-1]:
      wrong.append(f"{before} became {after.steps()}")
    for step in after.steps():
      if (problem := kill.unreadable(run, step)) is not None:
        wrong.append(f"step {step}: {problem}")
    steps = after.latest()
  ended = kill.Run(workdir, steps + 20, log=place / "log")
  if ended.start().wait() or ended.resumed() != steps:
    wrong.append(f"it was not resumed: {ended.output()[-300:]}")
  print("\n".join([*said, *wrong]), flush=True)
  return table.Row(
    "Training until the disk is full (tmpfs, ENOSPC)",
    times,
    f"every run ended with one line, all checkpoints are intact, and with room it is"
    f" resumed; {len(wrong)} otherwise",
    not wrong,
  )


if __name__ == "__main__":
  sys.exit(main())
