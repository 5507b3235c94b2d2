"""The metrics of a run: metrics.jsonl, and TensorBoard files if it is installed."""

import json
import math
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctx_encoder.data import files


class History:
  """Metrics by step, on disk and in memory.

  Args:
    workdir: folder of the run; lines go to `metrics.jsonl` in it.
    up_to_step: lines of later steps are dropped, since a resumed run repeats them.
    tensorboard: whether to write event files too, if TensorBoard is installed.
    write: whether to write files at all.
  """

  def __init__(
    self,
    workdir: Path,
    *,
    up_to_step: int = 0,
    tensorboard: bool = True,
    write: bool = True,
  ):
    self.path = Path(workdir) / "metrics.jsonl"
    self.lines = [line for line in read(self.path) if line["step"] <= up_to_step]
    self._file = self._writer = None
    if not write:
      return
    files.write(self.path, "".join(map(_encode, self.lines)))
    self._file = self.path.open("a")
    self._writer = _tensorboard_writer(workdir) if tensorboard else None

  def append(self, line: Mapping[str, Any]) -> None:
    """Adds one line; it must have "step"."""
    self.lines.append(dict(line))
    if self._file:
      self._file.write(_encode(line))
      self._file.flush()
    if self._writer:
      for name, value in line.items():
        if name != "step":
          self._writer.add_scalar(name, value, line["step"])

  def sync(self) -> None:
    """Flushes metrics.jsonl to disk."""
    if self._file:
      os.fsync(self._file.fileno())

  def validations(self) -> list[dict[str, Any]]:
    """Returns the lines of validations."""
    return [line for line in self.lines if line.get("eval/psnr_hole") is not None]

  def seconds(self) -> float:
    """Returns the training time up to the last line."""
    return (self.lines[-1].get("seconds") or 0.0) if self.lines else 0.0

  def close(self) -> None:
    if self._file:
      self._file.close()
    if self._writer:
      self._writer.close()


def read(path: Path) -> list[dict[str, Any]]:
  """Returns the lines of a metrics.jsonl, without those that are damaged.

  All values are numbers, or None if they were not finite.
  """
  if not path.is_file():
    return []
  lines = []
  for text in path.read_bytes().split(b"\n"):
    try:
      line = json.loads(text)
    except (ValueError, RecursionError):  # such as the end of a killed run
      continue
    if _is_line(line):
      lines.append(line)
  return lines


def _is_line(found: Any) -> bool:
  return (
    isinstance(found, dict)
    and isinstance(found.get("step"), int)
    and all(isinstance(value, int | float | None) for value in found.values())
  )


def _encode(line: Mapping[str, Any]) -> str:
  def plain(value):
    if not isinstance(value, float):
      return value
    # JSON has no infinity or NaN, and float32 no more than 8 significant digits.
    return float(f"{value:.8g}") if math.isfinite(value) else None

  return json.dumps({name: plain(value) for name, value in line.items()}) + "\n"


def _tensorboard_writer(workdir: Path):
  # With this module TensorBoard does not load TensorFlow, which takes seconds.
  sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("notf"))
  try:
    from tensorboard.summary import Writer
  except ImportError:
    return None
  return Writer(str(workdir))
