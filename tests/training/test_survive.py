"""Runs with bad steps, a second process, or an unusable work directory."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest
import tiny

from ctx_encoder.evaluation import figures
from ctx_encoder.training import history, loop, process, trainer
from ctx_encoder.training import step as step_module
from ctx_encoder.training.checkpoint import Checkpoints

STEPS = 6


@pytest.fixture(autouse=True, scope="module")
def tiny_networks():
  with pytest.MonkeyPatch.context() as patch:
    tiny.use_mosaics(patch)
    patch.setattr(figures, "curves", lambda *args, **kwargs: None)
    yield


@pytest.fixture
def make_config(photographs):
  def make(**changes):
    options = {
      "data__path": str(photographs),
      "num_steps": STEPS,
      "log__every_steps": 1,
      "ema_decay": 0.9,
    }
    return tiny.config(**(options | changes))

  return make


def poison(monkeypatch, *steps, part="params", value=jnp.nan):
  """Makes a part of the generator's state NaN, or another value, at some steps.

  Steps count from 1. The metrics stay finite.
  """
  original = step_module.TrainState

  def after_step(*, step, generator, **rest):
    hit = jnp.isin(step, jnp.array(steps))

    def spoil(x):
      return jnp.where(hit, value, x) if jnp.issubdtype(x.dtype, jnp.floating) else x

    spoiled = jax.tree.map(spoil, getattr(generator, part))
    generator = generator.replace(**{part: spoiled})
    return original(step=step, generator=generator, **rest)

  monkeypatch.setattr(step_module, "TrainState", after_step)


def lines_of(folder):
  text = (folder / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


# Infinite and NaN values


@pytest.mark.slow
@pytest.mark.parametrize(
  ("part", "value"),
  [
    ("opt_state", jnp.inf),
    pytest.param("params", jnp.nan, marks=pytest.mark.slow),
    pytest.param("batch_stats", jnp.inf, marks=pytest.mark.slow),
  ],
)
def test_bad_steps_are_skipped_and_counted(
  make_config, tmp_path, monkeypatch, part, value
):
  """A bad step is never saved, not even where the next loss would not show it."""
  poison(monkeypatch, 2, 4, part=part, value=value)
  said = []
  config = make_config(on_nonfinite="skip", checkpoint__every_steps=2)
  outcome = trainer.train(config, tmp_path, say=said.append)
  assert outcome.reason == "finished"
  assert "Steps skipped because of infinite or NaN values: 2." in "\n".join(said)
  lines = lines_of(tmp_path)
  assert [line["step"] for line in lines if "skipped" in line] == [2, 4]
  losses = [line["step"] for line in lines if "loss/total" in line]
  assert losses == [1, 3, 5, 6]


def test_without_skipping_the_run_ends(make_config, tmp_path, monkeypatch):
  poison(monkeypatch, 2)
  with pytest.raises(trainer.NonFiniteError, match=r"At step 3 .* is nan"):
    trainer.train(make_config(), tmp_path, say=lambda text: None)


@pytest.mark.slow
def test_many_skips_in_a_row_end_the_run(make_config, tmp_path, monkeypatch):
  poison(monkeypatch, *range(2, 7))
  monkeypatch.setattr(loop, "_SKIPS_IN_A_ROW", 4)
  config = make_config(on_nonfinite="skip")
  with pytest.raises(trainer.NonFiniteError, match="4 steps in a row were skipped"):
    trainer.train(config, tmp_path, say=lambda text: None)


# The work directory


@pytest.mark.slow
def test_a_second_run_is_refused(make_config, tmp_path):
  folder = tmp_path / "run"
  with process.claimed(folder):
    with pytest.raises(OSError, match=rf"process {os.getpid()}, uses {folder}"):
      trainer.train(make_config(), folder, say=lambda text: None)
    assert sorted(path.name for path in folder.iterdir()) == [process.LOCK]
  assert not folder.exists()
  trainer.train(make_config(num_steps=1), folder, say=lambda text: None)
  trainer.train(make_config(num_steps=1), folder, say=lambda text: None)


def test_a_killed_run_leaves_no_lock(tmp_path):
  code = f"""
import pathlib, os, signal
from ctx_encoder.training import process
with process.claimed(pathlib.Path({str(tmp_path)!r})):
  os.kill(os.getpid(), signal.SIGKILL)
"""
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
  assert (tmp_path / process.LOCK).read_text()
  with process.claimed(tmp_path):
    assert (tmp_path / process.LOCK).read_text() == str(os.getpid())


@pytest.mark.parametrize("blocked", ["run", "above/run"])
def test_a_folder_that_cannot_be_written_to(make_config, tmp_path, blocked):
  (tmp_path / blocked.split("/")[0]).write_text("a file, not a folder")
  folder = tmp_path / blocked
  with pytest.raises(OSError, match=f"{folder} cannot be written to: .*--workdir"):
    trainer.train(make_config(), folder, say=lambda text: None)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is_named(tmp_path):
  with (
    pytest.raises(OSError, match=f"No space is left for the work directory {tmp_path}"),
    process.claimed(tmp_path),
    open("/dev/full", "w") as full,
  ):
    full.write("a line of the log")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(make_config, tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(OSError, match="cannot be written to: Permission denied"):
    trainer.train(make_config(), tmp_path / "run", say=lambda text: None)


def test_folders_of_a_refused_run_are_removed(make_config, tmp_path):
  folder = tmp_path / "a" / "b"
  with pytest.raises(FileNotFoundError):
    trainer.train(make_config(data__path="nowhere"), folder, say=lambda text: None)
  assert not pathlib.Path(tmp_path, "a").exists()
  folder.mkdir(parents=True)
  with pytest.raises(FileNotFoundError):
    trainer.train(make_config(data__path="nowhere"), folder, say=lambda text: None)
  assert folder.exists()


# A disk that does not answer

_STUCK = """
import os, sys
import pytest, tiny
from ctx_encoder.data import examples
from ctx_encoder.training import process, trainer
minute = float(sys.argv[4])  # shorter than a real one
trainer.Watchdog = lambda n, words: process.Watchdog(n * minute, words)
tiny.use_mosaics(pytest.MonkeyPatch())
decode, calls = examples.decode, []

def stuck(*args):
  calls.append(args)
  if len(calls) > 60:
    os.write(1, b"stuck\\n")  # from several threads
    os.read(os.pipe()[0], 1)
  return decode(*args)

examples.decode = stuck
config = tiny.config(
  data__path=sys.argv[1], data__cache="none", data__loader=sys.argv[2], num_steps=1000,
  eval__every_epochs=1000, checkpoint__every_steps=2,
  watchdog_minutes=1,
)
trainer.train(config, sys.argv[3])
"""


def stuck_run(photographs, workdir, loader, minute=5.0):
  """Starts a run; returns its process when it waits for an image that never comes."""
  tests = pathlib.Path(__file__).parents[1]
  path = os.pathsep.join([str(tests / "support"), str(tests.parent)])
  run = subprocess.Popen(
    [sys.executable, "-c", _STUCK, str(photographs), loader, str(workdir), str(minute)],
    env=os.environ | {"PYTHONPATH": path},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert run.stdout
  while run.stdout.readline() != "stuck\n":
    assert run.poll() is None
  return run


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["pillow", "tf"])
def test_the_second_ctrl_c_ends_a_run_with_a_stuck_read(photographs, tmp_path, loader):
  run = stuck_run(photographs, tmp_path / "run", loader)
  for _ in range(2):
    time.sleep(1)
    run.send_signal(signal.SIGINT)
  began = time.monotonic()
  _, err = run.communicate(timeout=200)
  assert run.returncode == 130, err
  assert time.monotonic() - began < 5  # 1.5 on a machine that is not busy


@pytest.mark.slow
def test_the_watchdog_ends_a_run_with_a_stuck_read(photographs, tmp_path):
  runs = {x: stuck_run(photographs, tmp_path / x, x, 0.2) for x in ("pillow", "tf")}
  for loader, run in runs.items():
    _, err = run.communicate(timeout=200)
    assert run.returncode == 1, err
    last = Checkpoints(tmp_path / loader / "checkpoints").latest()
    assert err.splitlines()[-1] == (
      "No progress for 0.2 minutes (watchdog_minutes) while reading images."
      f" The same command resumes from step {last} in {tmp_path / loader}."
    )


# Several processes


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step(
  photographs, tmp_path, compilation_cache
):
  """Only the second of two gets SIGTERM, as on a preempted machine."""
  root = pathlib.Path(__file__).parents[2]
  options = {
    "data.path": photographs,
    "data.image_size": 16,
    "data.loader": "pillow",
    "discriminator.depth": 1,
    "discriminator.width": 0.03,
    "model.width": 0.03,
    "batch_size": 4,
    "eval.every_epochs": 10_000,
    "log.every_steps": 1,
  }

  def start(steps):
    with socket.socket() as free:
      free.bind(("localhost", 0))
      address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, root / "launch.py", f"--workdir={tmp_path / 'run'}"]
    command += [f"--config={root / 'configs/quickstart.py'}"]
    command += [f"--config.{name}={value}" for name, value in options.items()]
    command += [f"--config.num_steps={steps}", f"--coordinator={address}"]
    return [
      subprocess.Popen(
        [*map(str, command), "--num_processes=2", f"--process_id={number}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
      )
      for number in (0, 1)
    ]

  def end(processes):
    try:
      printed = [process.communicate(timeout=200) for process in processes]
      assert [process.returncode for process in processes] == [0, 0], printed
    finally:
      for process in processes:
        process.kill()
    return [out for out, _ in printed]

  processes = start(100_000)
  deadline = time.time() + 200
  while len(history.read(tmp_path / "run" / "metrics.jsonl")) < 5:
    assert time.time() < deadline
    assert all(process.poll() is None for process in processes)
    time.sleep(0.1)
  processes[1].send_signal(signal.SIGTERM)
  first, second = end(processes)
  step = int(re.search(r"Stopped at step (\d+) of 100000 and saved", first)[1])
  assert "Stopped" not in second
  assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [step]
  assert lines_of(tmp_path / "run")[-1]["step"] == step
  first, _ = end(start(step + 3))
  assert f"Resuming at step {step} of {step + 3}" in first
  assert lines_of(tmp_path / "run")[-1]["step"] == step + 3
