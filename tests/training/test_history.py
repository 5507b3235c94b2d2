"""metrics.jsonl: of resumed and killed runs, and values that JSON cannot hold."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from ctx_encoder.training import history
from ctx_encoder.training.history import History


def write(workdir, *lines, **options):
  log = History(workdir, tensorboard=False, **options)
  for line in lines:
    log.append(line)
  log.close()
  return log


def refuse(constant):
  raise AssertionError(f"{constant} is no JSON")


def on_disk(workdir):
  """Reads the file as strictly as JSON is defined."""
  texts = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(text, parse_constant=refuse) for text in texts]


def test_lines_are_on_disk_as_soon_as_they_are_appended(tmp_path):
  log = History(tmp_path, tensorboard=False)
  for step in (10, 20):
    log.append({"step": step, "epoch": step / 10, "loss/total": 1 / step})
    assert on_disk(tmp_path)[-1]["step"] == step
  log.close()
  assert on_disk(tmp_path) == [
    {"step": 10, "epoch": 1.0, "loss/total": 0.1},
    {"step": 20, "epoch": 2.0, "loss/total": 0.05},
  ]
  assert history.read(tmp_path / "metrics.jsonl") == on_disk(tmp_path)


def test_digits(tmp_path):
  """Large and small numbers keep the digits of float32."""
  values = {"third": 1 / 3, "tiny": 1.23456789e-9, "seconds": 654321.98765}
  write(tmp_path, {"step": 1, "images": 10**12 + 1, "on": True, "note": "ä"} | values)
  (line,) = on_disk(tmp_path)
  for name, value in values.items():
    assert line.pop(name) == pytest.approx(value, rel=1e-7)
  assert line == {"step": 1, "images": 10**12 + 1, "on": True, "note": "ä"}
  assert max(map(len, (tmp_path / "metrics.jsonl").read_text().split())) < 20


def test_infinite_and_nan_values_become_null(tmp_path):
  line = {"step": 1, "a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.5}
  write(tmp_path, line | {"e": float(np.float32("nan"))})
  assert on_disk(tmp_path) == [
    {"step": 1, "a": None, "b": None, "c": None, "d": 0.5, "e": None}
  ]


def test_a_new_run_drops_old_lines(tmp_path):
  write(tmp_path, {"step": 1}, {"step": 2})
  log = write(tmp_path)
  assert log.lines == on_disk(tmp_path) == []


def test_a_resumed_run_drops_lines_of_later_steps(tmp_path):
  write(tmp_path, *({"step": step, "seconds": step / 2} for step in (1, 10, 20, 30)))
  log = History(tmp_path, up_to_step=20, tensorboard=False)
  assert log.seconds() == 10
  log.append({"step": 30, "seconds": 99.0})
  log.close()
  assert [line["step"] for line in on_disk(tmp_path)] == [1, 10, 20, 30]
  assert log.lines == on_disk(tmp_path)
  assert log.seconds() == 99
  assert {file.name for file in tmp_path.iterdir()} == {"metrics.jsonl"}


@pytest.mark.parametrize(
  "rest", ["{", '{"step": 3, "loss', '{"step": 3}\0\0', "\0" * 8]
)
def test_an_incomplete_last_line_is_left_out(tmp_path, rest):
  write(tmp_path, {"step": 1}, {"step": 2})
  path = tmp_path / "metrics.jsonl"
  path.write_text(path.read_text() + rest)
  assert history.read(path) == [{"step": 1}, {"step": 2}]
  write(tmp_path, {"step": 3, "x": 1.0}, up_to_step=2)
  assert on_disk(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "x": 1.0}]


@pytest.mark.parametrize(
  "bad",
  [
    b'{"step": 2, "loss',
    b"\xff\xfe\x80",
    b'{"step": 2, "note": "\xe9"}',
    b"\0" * 8,
    b"[" * 100_000,
    b"[1, 2]",
    b"7",
    b'{"loss": 1.0}',
    b'{"step": "2"}',
    b'{"step": 2, "seconds": "9"}',
    b'{"step": 2, "eval/psnr_hole": [9]}',
  ],
)
def test_a_damaged_line_costs_no_other(tmp_path, bad):
  write(tmp_path, {"step": 1}, {"step": 3})
  path = tmp_path / "metrics.jsonl"
  first, last = path.read_bytes().splitlines()
  path.write_bytes(b"\n".join([first, bad, last, b""]))
  assert history.read(path) == [{"step": 1}, {"step": 3}]
  write(tmp_path, {"step": 4}, up_to_step=3)
  assert on_disk(tmp_path) == [{"step": 1}, {"step": 3}, {"step": 4}]


def test_a_perfect_validation_is_read_again(tmp_path):
  """JSON has no infinity: such a PSNR is null, and does not count."""
  lines = [{"step": 1, "eval/psnr_hole": math.inf}, {"step": 2, "eval/psnr_hole": 9.0}]
  write(tmp_path, *lines)
  assert write(tmp_path, up_to_step=2).validations() == lines[1:]


def test_without_a_file(tmp_path):
  assert history.read(tmp_path / "metrics.jsonl") == []
  os.mkfifo(tmp_path / "metrics.jsonl")
  log = write(tmp_path, up_to_step=100)
  assert (log.lines, log.seconds(), log.validations()) == ([], 0.0, [])


def test_validations(tmp_path):
  validation = {"step": 2, "eval/psnr_hole": 17.5}
  log = write(tmp_path, {"step": 1, "psnr_hole": 3.0}, validation, {"step": 3})
  assert log.validations() == [validation]


def test_tensorboard_reads_the_same_numbers(tmp_path):
  pytest.importorskip("tensorboard")
  from tensorboard.backend.event_processing import event_accumulator
  from tensorboard.util import tensor_util

  log = History(tmp_path)
  for step in (1, 20):
    log.append({"step": step, "loss/total": 1 / step, "bad": math.nan, "images": step})
  log.close()
  events = event_accumulator.EventAccumulator(str(tmp_path))
  events.Reload()
  scalars = {
    tag: [
      (e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)
    ]
    for tag in events.Tags()["tensors"]
  }
  np.testing.assert_equal(
    scalars,
    {
      "loss/total": [(1, np.float32(1)), (20, np.float32(0.05))],
      "bad": [(1, np.float32("nan")), (20, np.float32("nan"))],
      "images": [(1, np.float32(1)), (20, np.float32(20))],
    },
  )


def test_without_tensorboard_there_are_no_event_files(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorboard", None)
  monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
  log = History(tmp_path)
  log.append({"step": 1})
  log.close()
  assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_does_not_load_tensorflow(tmp_path):
  pytest.importorskip("tensorboard")
  script = """
import sys
from ctx_encoder.training.history import History
log = History(sys.argv[1])
log.append({"step": 1, "loss/total": 1.0})
log.close()
assert "tensorboard" in sys.modules and "tensorflow" not in sys.modules
"""
  subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
