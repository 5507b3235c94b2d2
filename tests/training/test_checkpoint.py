"""Checkpoints: what is kept and restored, and failures of disk and process."""

import contextlib
import functools
import gc
import itertools
import json
import logging
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import zlib
from typing import Any

import absl.logging
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctx_encoder import config
from ctx_encoder.training import checkpoint
from ctx_encoder.training.checkpoint import Checkpoints, DamagedError

pytestmark = pytest.mark.filterwarnings("error")

CONFIG = {"seed": 3, "model": {"width": 0.5, "dropout": None}}
PSNR = "eval/psnr_hole"


@flax.struct.dataclass
class State:
  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any


def make_state(seed=0, size=4):
  rng = np.random.default_rng(seed)
  params = {
    "conv": {"kernel": jnp.asarray(rng.normal(size=(3, 3, size)), jnp.float32)},
    "half": jnp.asarray(rng.normal(size=size), jnp.bfloat16),
    "empty": {},
  }
  return State(
    step=jnp.int32(seed),
    params=params,
    batch_stats={},
    opt_state=optax.chain(optax.clip(1.0), optax.adam(1e-3)).init(params),
    ema=None,
  )


def shapes(state):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def assert_equal(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """A folder with checkpoints of steps 1 and 2. It is read only; see `copy`."""
  folder = tmp_path_factory.mktemp("saved") / "checkpoints"
  with Checkpoints(folder) as checkpoints:
    for step in (1, 2):
      checkpoints.save(step, make_state(step), config=CONFIG, extra={"position": step})
  return folder


@pytest.fixture
def copy(saved, tmp_path):
  return pathlib.Path(shutil.copytree(saved, tmp_path / "checkpoints"))


class TestRestore:
  def test_restores_the_latest(self, saved):
    checkpoints = Checkpoints(saved)
    state, extra = checkpoints.restore(shapes(make_state()))
    assert_equal(state, make_state(2))
    assert isinstance(state, State)
    assert extra == {"position": 2}
    assert checkpoints.read_config() == CONFIG

  def test_restores_an_earlier_step(self, saved):
    state, extra = Checkpoints(saved).restore(make_state(), step=1)
    assert_equal(state, make_state(1))
    assert extra == {"position": 1}

  def test_no_checkpoint(self, tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.steps() == []
    assert checkpoints.latest() is None
    assert checkpoints.best() is None
    for read in (lambda: checkpoints.restore(make_state()), checkpoints.read_config):
      with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*none"):
        read()
    checkpoints.close()
    assert not (tmp_path / "none").exists()

  def test_no_such_step(self, saved):
    with pytest.raises(FileNotFoundError, match=r"step 7 in .*, only of 1, 2\."):
      Checkpoints(saved).restore(make_state(), step=7)
    with pytest.raises(FileNotFoundError, match="step 7"):
      Checkpoints(saved).read_config(7)

  def test_reading_changes_nothing(self, copy):
    (copy / "9.orbax-checkpoint-tmp").mkdir()  # a save in progress
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    with Checkpoints(copy) as checkpoints:
      assert checkpoints.steps() == [1, 2]
      checkpoints.restore(make_state())
      checkpoints.read_config()
      checkpoints.best()
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before

  def test_another_model(self, saved, caplog):
    """Named by array; no older checkpoint is tried, since it would not fit either."""
    with pytest.raises(ValueError, match="of another model") as error:
      Checkpoints(saved).restore(make_state(size=8))
    assert not isinstance(error.value, DamagedError)
    assert (
      "params/conv/kernel is float32[3, 3, 4] in the checkpoint,"
      " float32[3, 3, 8] in the model" in str(error.value)
    )
    assert "\n" not in str(error.value)
    assert not caplog.records

  def test_another_type_or_structure(self, saved):
    state = make_state()
    half = state.replace(step=state.step.astype(jnp.int16))
    with pytest.raises(ValueError, match=r"step is int32\[\] in .*, int16\[\] in"):
      Checkpoints(saved).restore(half)
    with pytest.raises(ValueError, match=r"ema/x is absent in .*, float32\[2\] in"):
      Checkpoints(saved).restore(state.replace(ema={"x": jnp.zeros(2)}))
    with pytest.raises(ValueError, match=r"step is int32\[\] in .*, absent in"):
      Checkpoints(saved).restore(state.replace(step=None))

  def test_a_part_of_what_was_saved(self, saved):
    state = make_state().replace(opt_state=None)
    found, _ = Checkpoints(saved).restore(shapes(state), partial=True)
    assert_equal(found, make_state(2).replace(opt_state=None))
    with pytest.raises(ValueError, match=r"opt_state/\S+ is .*, absent in the model"):
      Checkpoints(saved).restore(shapes(state))
    other = shapes(state.replace(ema={"x": jnp.zeros(2)}))
    with pytest.raises(ValueError, match=r"ema/x is absent in .*, float32\[2\] in"):
      Checkpoints(saved).restore(other, partial=True)


class TestSave:
  def test_state_may_be_donated(self, tmp_path):
    """The next step overwrites the state: what is written must not change."""

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state):
      return jax.tree.map(lambda x: -x - 1, state)

    @jax.jit
    def make(seed):
      number = jnp.arange(2**20, dtype=jnp.float32)
      return [number + 100 * seed + i for i in range(12)]  # 48 MiB

    with Checkpoints(tmp_path) as checkpoints:
      for step in (1, 2):  # the second save finds the first one in progress
        state = jax.block_until_ready(make(step))
        checkpoints.save(step, state, config={})
        for _ in range(4):
          state = train_step(state)
        jax.block_until_ready(state)
      for step in (1, 2):
        restored, _ = checkpoints.restore(state, step)
        assert_equal(restored, make(step))
        assert_equal(train_step(restored), train_step(make(step)))

  def test_only_json_is_saved_with_it(self, tmp_path):
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(TypeError, match="JSON"):
      checkpoints.save(1, make_state(), config={}, extra={"position": np.int64(3)})
    with pytest.raises(TypeError, match="not iterable"):
      checkpoints.save(1, make_state(), config=config.default())
    checkpoints.close()
    assert checkpoints.steps() == []

  def test_arrays_as_step_and_metrics(self, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
      metrics = {PSNR: jnp.float32(20.5)}
      checkpoints.save(jnp.int32(4), make_state(), config={}, metrics=metrics)
    assert checkpoints.best() == 4

  def test_a_step_is_saved_once(self, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
      checkpoints.save(1, make_state(1), config=CONFIG, extra={"position": 1})
      checkpoints.save(1, make_state(2), config={}, extra={"position": 2})
      assert checkpoints.best() is None
      checkpoints.save(1, make_state(3), config={}, metrics={PSNR: 20.0})
      assert checkpoints.best() == 1
      checkpoints.save(1, make_state(4), config={}, metrics={PSNR: 10.0})
    state, extra = Checkpoints(tmp_path).restore(make_state())
    assert_equal(state, make_state(1))
    assert extra == {"position": 1}
    assert checkpoints.read_config() == CONFIG
    record = json.loads((tmp_path / "1" / "record.json").read_text())
    assert record["metrics"] == {PSNR: 20.0}

  def test_leaves_no_threads(self, tmp_path):
    before = set(threading.enumerate())
    checkpoints = Checkpoints(tmp_path)
    counts = []
    for step in range(1, 5):
      checkpoints.save(step, {"x": jnp.zeros(2)}, config={})
      checkpoints.wait()
      counts.append(threading.active_count())
    assert max(counts[2:]) <= max(counts[:2])
    checkpoints.close()
    assert {t for t in threading.enumerate() if t.is_alive()} <= before

  def test_saves_leak_no_python_objects(self, tmp_path):
    """TensorStore would leave some 300 after each save."""
    state, before = {str(i): jnp.zeros(3) for i in range(20)}, 0
    with Checkpoints(tmp_path) as checkpoints:
      for step in range(9):
        if step == 3:
          gc.collect()
          before = sys.getallocatedblocks()
        checkpoints.save(step, state, config={})
        checkpoints.wait()
    gc.collect()
    assert sys.getallocatedblocks() - before < 6 * 150

  def test_orbax_is_quiet(self, tmp_path, caplog):
    with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, logger="absl"):
      with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(), config={})
        checkpoints.restore(make_state())
      absl.logging.info("from another library")
    absl_records = [entry.message for entry in caplog.records if entry.name == "absl"]
    assert absl_records == ["from another library"]


def test_a_save_is_on_disk_before_its_name_and_before_others_are_removed(
  copy, monkeypatch
):
  """Every file and folder, then the rename, then what is removed."""
  events = []
  calls = {name: getattr(os, name) for name in ("fsync", "rename")}

  def fsync(descriptor):
    events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
    calls["fsync"](descriptor)

  def rename(source, target, **options):
    below = {str(path) for path in pathlib.Path(source).rglob("*")}
    events.append(("rename", str(target), {str(source), *below}))
    calls["rename"](source, target, **options)

  monkeypatch.setattr(os, "fsync", fsync)
  monkeypatch.setattr(os, "rename", rename)
  with Checkpoints(copy, keep=1) as checkpoints:
    checkpoints.save(3, make_state(3), config={})
  renames = [n for n, event in enumerate(events) if event[0] == "rename"]
  _, named, *removals = renames  # the first is Orbax's
  _, target, complete = events[named]
  assert target == str(copy / "3")
  assert len(complete) > 15
  assert {path for kind, path, *_ in events[:named] if kind == "sync"} >= complete
  assert [events[n][1] for n in removals] == [f"{copy}/{n}.removed" for n in (1, 2)]
  assert ("sync", str(copy)) in events[named : removals[0]]


class TestKept:
  """Which checkpoints remain after a sequence of saves."""

  @pytest.mark.parametrize(
    ("keep", "psnr", "expected", "best"),
    [
      (2, [None, None, None, None], [3, 4], None),
      (1, [None, None], [2], None),
      (2, [9.0, 12.0, 11.0, 10.0, 8.0], [2, 4, 5], 2),
      (1, [9.0, 12.0, 11.0, 13.0], [4], 4),
      (1, [9.0, None, None], [1, 3], 1),  # without metrics only the latest is kept
      (1, [9.0, 9.0, None], [2, 3], 2),
      (2, [9.0, 9.0], [1, 2], 2),
      (1, [9.0, float("nan"), 8.0], [1, 3], 1),
      (1, [-4.0, -3.0, -5.0], [2, 3], 2),
    ],
  )
  def test_latest_and_best(self, tmp_path, keep, psnr, expected, best):
    state = {"x": jnp.zeros(2)}
    with Checkpoints(tmp_path, keep=keep) as checkpoints:
      for step, value in enumerate(psnr, start=1):
        metrics = None if value is None else {PSNR: value, "eval/l1_hole": -value}
        checkpoints.save(step, state, config={}, metrics=metrics)
    for again in (checkpoints, Checkpoints(tmp_path)):
      assert again.steps() == expected
      assert again.latest() == expected[-1]
      assert again.best() == best

  def test_over_several_runs(self, tmp_path):
    """Checkpoints of earlier runs count; checkpoints with other metrics do not."""
    for step, metrics in enumerate([{PSNR: 9.0}, {"loss": 1.0}, {}, {"loss": 2.0}], 1):
      with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(step, {"x": jnp.zeros(2)}, config={}, metrics=metrics)
    assert checkpoints.steps() == [1, 4]
    assert checkpoints.best() == 1

  def test_another_best_metric(self, tmp_path):
    with Checkpoints(tmp_path, keep=1, best_metric="score") as checkpoints:
      for step, score in enumerate([3.0, 2.0, 1.0], start=1):
        metrics = {"score": score, PSNR: -score}
        checkpoints.save(step, {"x": jnp.zeros(2)}, config={}, metrics=metrics)
    assert checkpoints.steps() == [1, 3]
    assert checkpoints.best() == 1

  def test_linked_steps(self, copy, tmp_path):
    """Checkpoints moved to another disk are read, and only the links removed."""
    for step in ("1", "2"):
      (copy / step).rename(tmp_path / step)
      (copy / step).symlink_to(tmp_path / step)
    with Checkpoints(copy, keep=1) as checkpoints:
      assert_equal(checkpoints.restore(make_state())[0], make_state(2))
      checkpoints.save(3, make_state(3), config={})
    assert [path.name for path in copy.iterdir()] == ["3"]
    assert_equal(checkpoints.restore(make_state())[0], make_state(3))
    assert checkpoint.record.read(tmp_path / "2")["step"] == 2

  def test_what_is_in_the_way_of_a_step(self, copy):
    """A file, a dangling link, and remains of a save and of a removal."""
    (copy / "3").write_text("a file")
    (copy / "4").symlink_to("nowhere")
    (copy / "5.saving").mkdir()
    (copy / "0.removed").mkdir()
    (copy / "notes.txt").write_text("not ours")
    with Checkpoints(copy, keep=1) as checkpoints:
      assert_equal(checkpoints.restore(make_state())[0], make_state(2))
      checkpoints.save(3, make_state(3), config={})
    assert {path.name for path in copy.iterdir()} == {"3", "notes.txt"}

  def test_an_earlier_step_can_be_saved(self, copy):
    with Checkpoints(copy) as checkpoints:
      checkpoints.save(0, make_state(), config={})
    assert 0 in checkpoints.steps()

  def test_at_least_one_is_kept(self, tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
      Checkpoints(tmp_path, keep=0)


def flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x10
  path.write_bytes(data)


def truncate(path):
  path.write_bytes(path.read_bytes()[:-1])


def empty(path):
  path.write_bytes(b"")


def remove(path):
  path.unlink()


def assert_falls_back(folder, problem):
  """Checks that step 2 is named as damaged, and 1 used."""
  with pytest.raises(DamagedError, match=f"/2 is damaged: .*({problem})") as error:
    Checkpoints(folder).restore(make_state(), 2)
  assert len(str(error.value)) < 1000
  assert_equal(Checkpoints(folder).restore(make_state())[0], make_state(1))
  assert Checkpoints(folder).read_config() == CONFIG
  assert Checkpoints(folder).best() is None


class TestDamage:
  def test_any_file(self, copy, caplog):
    """Whichever file is damaged, a warning names it and the one before is used."""
    step = copy / "2"
    record = json.loads((step / "record.json").read_text())
    assert any("/d/" in name for name in record["files"])  # the arrays' own
    damages = itertools.cycle([flip, truncate, empty, remove])
    for name in [*record["files"], "record.json"]:
      content = (step / name).read_bytes()
      damage = next(damages) if content else remove
      damage(step / name)
      caplog.clear()
      state, extra = Checkpoints(copy).restore(make_state())
      assert_equal(state, make_state(1))
      assert extra == {"position": 1}
      (warning,) = caplog.records
      assert warning.levelname == "WARNING"
      assert f"{step} is damaged" in warning.message
      assert name in warning.message
      assert "\n" not in warning.message
      with pytest.raises(DamagedError, match="is damaged") as error:
        Checkpoints(copy).restore(make_state(), step=2)
      assert name in str(error.value)
      (step / name).write_bytes(content)
    assert_equal(Checkpoints(copy).restore(make_state())[0], make_state(2))

  def test_every_file_has_a_checksum(self, saved):
    step = saved / "2"
    found = {p.relative_to(step).as_posix() for p in step.rglob("*") if p.is_file()}
    recorded = json.loads((step / "record.json").read_text())["files"]
    assert recorded.keys() == found - {"record.json"}
    name = max(recorded, key=lambda name: (step / name).stat().st_size)
    line = subprocess.check_output(["sha256sum", step / name], text=True)
    assert line.split()[0] == recorded[name]

  def test_deleted_files(self, copy, caplog):
    shutil.rmtree(copy / "2" / "state")
    assert_equal(Checkpoints(copy).restore(make_state())[0], make_state(1))
    shutil.rmtree(copy / "2")
    (copy / "2").mkdir()
    assert_equal(Checkpoints(copy).restore(make_state())[0], make_state(1))
    assert Checkpoints(copy).read_config() == CONFIG
    assert len(caplog.records) == 2

  @pytest.mark.parametrize(
    "content",
    ["[1, 2]", "7", "null", '"text"', "[" * 100_000, "{}", '{"crc32": 0}', "\udcff"],
  )
  def test_a_record_that_is_no_record(self, copy, content):
    (copy / "2/record.json").write_bytes(content.encode(errors="surrogateescape"))
    assert_falls_back(copy, "cannot read record.json|was altered")

  @pytest.mark.parametrize(
    ("changes", "problem"),
    [
      ({"arrays": None}, "lacks 'arrays'"),
      ({"files": ["a"]}, "lacks 'files'"),
      ({"config": 3}, "lacks 'config'"),
      ({"extra": "x"}, "lacks 'extra'"),
      ({"step": "2"}, "lacks 'step'"),
      ({"metrics": {PSNR: "high"}}, "is not a number"),
      ({"step": 1}, "is of step 1"),
    ],
  )
  def test_a_record_of_another_shape(self, copy, changes, problem):
    """With a right checksum."""
    folder = copy / "2"
    saved = checkpoint.record.read(folder) | changes
    checkpoint.record.write(folder, {k: v for k, v in saved.items() if v is not None})
    assert_falls_back(copy, problem)

  @pytest.mark.parametrize("name", ["record.json", "state/manifest.ocdbt"])
  def test_a_pipe_in_place_of_a_file(self, copy, name):
    """Reading it would wait for a writer."""
    (copy / "2" / name).unlink()
    os.mkfifo(copy / "2" / name)
    with pytest.raises(DamagedError, match=f"cannot read {name} .*not a regular file"):
      Checkpoints(copy).restore(make_state(), 2)
    assert_equal(Checkpoints(copy).restore(make_state())[0], make_state(1))

  def test_a_step_under_another_number(self, copy):
    (copy / "2").rename(copy / "7")
    with pytest.raises(DamagedError, match=r"/7 is damaged: .* is of step 2\."):
      Checkpoints(copy).restore(make_state(), 7)
    assert_equal(Checkpoints(copy).restore(make_state())[0], make_state(1))

  def test_a_newer_format_is_refused(self, copy, monkeypatch):
    """Not the one before: it would be continued, and the newer removed."""
    saved = checkpoint.record.read(copy / "2")
    with monkeypatch.context() as patch:
      patch.setattr(checkpoint.record, "_FORMAT", 9)
      checkpoint.record.write(copy / "2", saved)
    checkpoints = Checkpoints(copy)
    reads = (checkpoints.read_config, checkpoints.best)
    for read in (lambda: checkpoints.restore(make_state()), *reads):
      with pytest.raises(ValueError, match=r"2 has format 9, .*: update ctx_encoder"):
        read()
    flip(copy / "2/record.json")
    assert_equal(Checkpoints(copy).restore(make_state())[0], make_state(1))

  def test_the_format_before(self, copy, caplog):
    """CRC-32 of files in subfolders and of the record, which has no format."""
    path = copy / "2/record.json"
    saved = json.loads(path.read_text())
    del saved["sha256"], saved["format"]
    saved["files"] = {
      name: zlib.crc32((copy / "2" / name).read_bytes())
      for name in saved["files"]
      if "/" in name
    }
    crc32 = zlib.crc32(json.dumps(saved).encode())
    path.write_text(json.dumps(saved | {"crc32": crc32}))
    with Checkpoints(copy) as checkpoints:
      assert_equal(checkpoints.restore(make_state())[0], make_state(2))
      checkpoints.save(2, make_state(), config={}, metrics={PSNR: 9.0})
      assert checkpoints.best() == 2
      assert_equal(checkpoints.restore(make_state())[0], make_state(2))
    assert not caplog.records
    truncate(copy / "2/state/manifest.ocdbt")
    with pytest.raises(DamagedError, match=r"manifest.ocdbt was altered"):
      Checkpoints(copy).restore(make_state(), 2)

  def test_the_best_without_a_damaged_record_is_named(self, tmp_path, caplog):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
      for step, psnr in enumerate([9.0, 12.0, 11.0], start=1):
        checkpoints.save(step, {"x": jnp.zeros(2)}, config={}, metrics={PSNR: psnr})
    assert checkpoints.best() == 2
    assert not caplog.records
    truncate(tmp_path / "2/record.json")
    assert checkpoints.best() == 3
    (warning,) = caplog.records
    assert f"{tmp_path / '2'} is damaged" in warning.message
    assert "The best of the others is used." in warning.message

  def test_all_are_damaged(self, copy):
    for step in ("1", "2"):
      remove(copy / step / "record.json")
    with pytest.raises(DamagedError, match="none of its steps is intact"):
      Checkpoints(copy).restore(make_state())
    with pytest.raises(DamagedError, match="none of its steps is intact"):
      Checkpoints(copy).read_config()
    assert Checkpoints(copy).best() is None

  def test_a_damaged_one_is_not_counted_as_kept(self, copy):
    truncate(copy / "2" / "state" / "manifest.ocdbt")
    with Checkpoints(copy, keep=2) as checkpoints:
      checkpoints.restore(make_state())
      checkpoints.save(3, make_state(3), config={})
    assert checkpoints.steps() == [1, 3]

  def test_the_next_save_replaces_the_damaged_one(self, copy):
    """The intact one is kept until then."""
    truncate(copy / "2" / "state" / "manifest.ocdbt")
    with Checkpoints(copy, keep=1) as checkpoints:
      checkpoints.restore(make_state())
      with pytest.MonkeyPatch.context() as patch:  # a save that fails removes nothing
        patch.setattr(checkpoint.record, "file_checksums", fail)
        checkpoints.save(3, make_state(3), config={})
        with pytest.raises(OSError, match="disk full"):
          checkpoints.wait()
      assert checkpoints.steps() == [1, 2]
      checkpoints.save(2, make_state(7), config={})
      checkpoints.wait()
      assert checkpoints.steps() == [2]
      assert_equal(checkpoints.restore(make_state())[0], make_state(7))

  def test_saving_a_step_whose_record_is_damaged(self, copy):
    truncate(copy / "2" / "record.json")
    with Checkpoints(copy) as checkpoints:
      checkpoints.save(2, make_state(7), config={})
    assert_equal(checkpoints.restore(make_state())[0], make_state(7))


def fail(*args):
  raise OSError("disk full")


@contextlib.contextmanager
def files_limited_to(size):
  """Every write beyond `size` bytes fails, as on a full disk."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


class TestFailure:
  @pytest.mark.parametrize("call", ["wait", "close", "save", "restore", "with"])
  def test_a_failed_write_is_raised_once(self, copy, call, caplog):
    big = {"x": jnp.asarray(np.random.default_rng(0).normal(size=1 << 17), jnp.float32)}
    checkpoints = Checkpoints(copy)
    calls = {
      "wait": checkpoints.wait,
      "close": checkpoints.close,
      "save": lambda: checkpoints.save(4, make_state(), config={}),
      "restore": lambda: checkpoints.restore(make_state()),
      "with": lambda: checkpoints.__exit__(None, None, None),
    }
    with files_limited_to(1 << 18):
      checkpoints.save(3, big, config={})
      with pytest.raises(OSError, match=r"step 3 cannot be .*File too large") as error:
        calls[call]()
    assert "\n" not in str(error.value)
    assert not [entry for entry in caplog.records if entry.exc_info]
    checkpoints.wait()
    assert checkpoints.steps() == [1, 2]
    checkpoints.save(5, make_state(5), config={})  # the disk has room again
    checkpoints.close()
    assert checkpoints.steps() == [2, 5]
    assert_equal(checkpoints.restore(make_state())[0], make_state(5))

  def test_a_folder_that_cannot_be_made_is_raised_at_once(self, tmp_path):
    (tmp_path / "file").touch()
    checkpoints = Checkpoints(tmp_path / "file" / "checkpoints")
    with pytest.raises(NotADirectoryError):
      checkpoints.save(1, make_state(), config={})
    checkpoints.close()

  def test_what_is_no_folder_is_refused_before_training(self, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
      with pytest.raises(NotADirectoryError, match=f"{name} is not a folder"):
        Checkpoints(tmp_path / name)

  @pytest.mark.slow
  def test_killed_while_saving(self, copy):
    script = """
      import os, signal, sys
      import jax.numpy as jnp
      from ctx_encoder.training import record
      from ctx_encoder.training.checkpoint import Checkpoints

      # All arrays are written; the folder is not renamed yet.
      record.file_checksums = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
      checkpoints = Checkpoints(sys.argv[1])
      checkpoints.save(3, {"x": jnp.zeros(8)}, config={})
      checkpoints.wait()
    """
    root = pathlib.Path(checkpoint.__file__).parents[2]
    done = subprocess.run(
      [sys.executable, "-c", textwrap.dedent(script), str(copy)],
      env={**os.environ, "PYTHONPATH": str(root)},
      stderr=subprocess.PIPE,
      text=True,
      timeout=180,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = {path.name for path in copy.iterdir()} - {"1", "2"}
    assert len(left) == 1
    with Checkpoints(copy) as checkpoints:
      assert checkpoints.steps() == [1, 2]
      assert_equal(checkpoints.restore(make_state())[0], make_state(2))
      checkpoints.save(4, make_state(4), config={})
    assert {path.name for path in copy.iterdir()} == {"2", "4"}
    assert_equal(checkpoints.restore(make_state())[0], make_state(4))
