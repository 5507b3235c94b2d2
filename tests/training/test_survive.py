"""What a run comes through: poisoned steps, a rival, a folder it cannot use."""

import functools
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
import numpy as np
import pytest
import tiny

from ctx_encoder.evaluation import figures
from ctx_encoder.training import assembly as build
from ctx_encoder.training import history, loop, process
from ctx_encoder.training import run as trainer
from ctx_encoder.training.checkpoint import Checkpoints
from ctx_encoder.training.step import skip_nonfinite

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


def poison(monkeypatch, *steps):
  """Lets a gradient explode at the given steps, from 1 on, unseen by the losses."""
  original = build.make_train_step

  def make(*args, **kwargs):
    step = original(*args, **kwargs)

    def poisoned(state, batch, key):
      after, measured = step(state, batch, key)
      hit = jnp.isin(after.step, jnp.array(steps))
      params = jax.tree.map(
        lambda x: jnp.where(hit, jnp.nan, x), after.generator.params
      )
      own = after.generator.replace(params=params)
      return after.replace(generator=own), measured

    return poisoned

  monkeypatch.setattr(build, "make_train_step", make)


def lines_of(folder):
  text = (folder / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


# Steps that are not finite


def test_a_skipped_step_changes_nothing_but_its_number():
  run = build.run(tiny.config(on_nonfinite="skip", ema_decay=0.5), total_steps=10)
  state = jax.jit(lambda: run.init(0, average=True))()
  step = jax.jit(run.train_step)
  after, measured = step(state, tiny.batch(4), jax.random.key(0))
  assert measured["skipped"] == 0
  plain = jax.jit(build.run(tiny.config(ema_decay=0.5), total_steps=10).train_step)(
    state, tiny.batch(4), jax.random.key(0)
  )[0]
  # Adam's first update is of the gradient's sign, hence as large where it is rounding.
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=5e-4)
  jax.tree.map(close, plain, after)

  def explode(state, batch, key):
    after, measured = run.train_step(state, batch, key)
    return after, measured | {"loss/total": jnp.log(-1.0)}

  skipped, measured = jax.jit(skip_nonfinite(explode))(
    state, tiny.batch(4), jax.random.key(0)
  )
  assert measured["skipped"] == 1
  assert skipped.step == 1
  jax.tree.map(np.testing.assert_array_equal, skipped.replace(step=state.step), state)


def test_skips_are_counted_and_the_run_goes_on(make_config, tmp_path, monkeypatch):
  poison(monkeypatch, 2, 4)
  said = []
  config = make_config(on_nonfinite="skip")
  outcome = trainer.train(config, tmp_path, say=said.append)
  assert outcome.reason == "finished"
  assert "Steps skipped since their outcome was not finite: 2." in "\n".join(said)
  lines = lines_of(tmp_path)
  assert [line["step"] for line in lines if "skipped" in line] == [2, 4]
  losses = [line["step"] for line in lines if "loss/total" in line]
  assert losses == [1, 3, 5, 6]


def test_by_default_the_same_ends_the_run(make_config, tmp_path, monkeypatch):
  poison(monkeypatch, 2)
  with pytest.raises(trainer.NonFiniteError, match=r"At step 3 .* is nan"):
    trainer.train(make_config(), tmp_path, say=lambda text: None)


def test_skipping_ends_too_where_nothing_else_happens(
  make_config, tmp_path, monkeypatch
):
  poison(monkeypatch, *range(2, 7))
  monkeypatch.setattr(loop, "_SKIPS_IN_A_ROW", 4)
  config = make_config(on_nonfinite="skip")
  with pytest.raises(trainer.NonFiniteError, match="4 steps in a row were skipped"):
    trainer.train(config, tmp_path, say=lambda text: None)


# The work directory


def test_a_second_run_is_refused(make_config, tmp_path):
  folder = tmp_path / "run"
  with process.claimed(folder):
    with pytest.raises(
      OSError, match=rf"process {os.getpid()}, is at work in {folder}"
    ):
      trainer.train(make_config(), folder, say=lambda text: None)
    assert sorted(path.name for path in folder.iterdir()) == [process.LOCK]
  assert not folder.exists()
  trainer.train(make_config(num_steps=1), folder, say=lambda text: None)
  trainer.train(make_config(num_steps=1), folder, say=lambda text: None)


def test_a_killed_run_leaves_no_claim(tmp_path):
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
def test_a_full_disk_is_told_of(tmp_path):
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


def test_what_was_made_for_nothing_is_taken_away(make_config, tmp_path):
  folder = tmp_path / "a" / "b"
  with pytest.raises(FileNotFoundError):
    trainer.train(make_config(data__path="nowhere"), folder, say=lambda text: None)
  assert not pathlib.Path(tmp_path, "a").exists()
  folder.mkdir(parents=True)
  with pytest.raises(FileNotFoundError):
    trainer.train(make_config(data__path="nowhere"), folder, say=lambda text: None)
  assert folder.exists()


# Several processes


@pytest.mark.slow
def test_a_notice_to_one_process_ends_all_at_the_same_step(
  photographs, tmp_path, compilation_cache
):
  """Only the second of two gets SIGTERM, as a machine that is taken away does."""
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
