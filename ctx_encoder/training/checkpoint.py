"""Checkpoints of a run: the latest few and the best, written in the background.

Orbax writes the arrays. The record next to them holds the metadata and checksums, see
`record`.
"""

import contextlib
import dataclasses
import json
import logging
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ctx_encoder.training import record
from ctx_encoder.training.record import DamagedError, PyTree, Record

__all__ = ["Checkpoints", "DamagedError"]

_LOG = logging.getLogger(__name__)

# Arrays that older checkpoints lack: functions from the record to their values.
_LATER = {"updates": lambda saved: saved["step"] * saved["config"].get("accumulate", 1)}


def _worth_logging(entry: logging.LogRecord) -> bool:
  by_orbax = f"{os.sep}orbax{os.sep}" in entry.pathname
  # `Checkpoints.wait` raises the errors of saves.
  worth = entry.levelno >= logging.WARNING and not entry.exc_info
  return worth or not by_orbax


# Orbax logs every save in detail with absl's logger, which other libraries use too.
logging.getLogger("absl").addFilter(_worth_logging)


class Checkpoints:
  """The checkpoints of one work directory: the latest few and the best.

  Reading creates and removes nothing, so the checkpoints of a running process can be
  read. Several processes must all make the same calls on one shared directory.

  Args:
    directory: folder of the checkpoints. The first `save` creates it, and removes the
      remains of a killed save.
    keep: number of latest checkpoints kept, at least 1.
    best_metric: name of a metric. The checkpoint with its best value is kept too.
    higher_is_better: whether the best value is the highest, or the lowest.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    keep: int = 2,
    best_metric: str = "eval/psnr_hole",
    higher_is_better: bool = True,
  ):
    if keep < 1:
      raise ValueError(f"keep must be at least 1 checkpoint, not {keep}")
    self._directory = pathlib.Path(directory).absolute()
    self._keep = keep
    self._best_metric = best_metric
    self._sign = 1 if higher_is_better else -1
    self._damaged: set[int] = set()  # steps found damaged; the next save removes them
    self._writer: ocp.training.Checkpointer | None = None
    self._saving: ocp.AsyncResponse[bool] | None = None
    self._record: Record = {}  # of the last save, for as long as it is in progress

  def steps(self) -> list[int]:
    """Returns the steps of all finished checkpoints, ascending."""
    if not self._directory.is_dir():
      return []
    return sorted(int(p.name) for p in self._directory.iterdir() if p.name.isdecimal())

  def latest(self) -> int | None:
    """Returns the last step; None = there is no checkpoint."""
    return max(self.steps(), default=None)

  def best(self) -> int | None:
    """Returns the step with the best `best_metric`, of equals the last.

    None = no checkpoint has that metric.
    """
    scores = {step: self._score(step) for step in self.steps()}
    best = max(scores, key=lambda step: (scores[step], step), default=None)
    return None if best is None or scores[best] == -math.inf else best

  def save(
    self,
    step: int,
    state: PyTree,
    *,
    config: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    extra: Mapping[str, Any] | None = None,
  ) -> None:
    """Starts writing a checkpoint; `state` may be donated as soon as this returns.

    Waits for the save before. A step that exists is not written again, but gets
    `metrics` if it has none.

    Args:
      step: training step, the name of the checkpoint.
      state: pytree of arrays.
      config: configuration, JSON.
      metrics: name to value; without `best_metric` the checkpoint is never the best.
      extra: more data for `restore` to return, JSON.

    Raises:
      TypeError: `config` or `extra` is not JSON.
      OSError: the save before could not be written.
    """
    self.wait()
    step = int(step)
    metrics = {name: float(value) for name, value in (metrics or {}).items()}
    saved = None if step in self._damaged else self._find_record(step)
    if saved is not None:
      if metrics and not saved["metrics"] and jax.process_index() == 0:
        record.write(self._folder(step), saved | {"metrics": metrics})
      return
    self._record = {
      "step": step,
      "metrics": metrics,
      "extra": dict(extra or {}),
      "config": dict(config),
      "arrays": record.layout(state),
    }
    json.dumps(self._record)  # fails here and not in the background
    self._damaged.discard(step)
    self._writer = writer = self._writer or self._open_writer()
    self._saving = writer.save_checkpointables_async(
      step,
      {"state": state},
      force=True,  # Orbax saves no step before the latest otherwise
      overwrite=self._folder(step).exists(),
    )

  def restore(
    self,
    abstract_state: PyTree,
    step: int | None = None,
    *,
    partial: bool = False,
  ) -> tuple[PyTree, dict[str, Any]]:
    """Reads a checkpoint, by default the latest intact one.

    Args:
      abstract_state: pytree of arrays or `jax.ShapeDtypeStruct` with the saved
        structure. Arrays get its shardings, or are put on the first device.
      step: one of `steps()`; None = the latest, or if that is damaged, the one before,
        with a warning.
      partial: whether `abstract_state` is only a part of the saved state.

    Returns:
      The state, and the saved `extra`.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      DamagedError: the checkpoint of that step, or every checkpoint, is damaged.
      ValueError: the saved arrays have other names, shapes or types.
    """
    self.wait()
    if step is not None:
      return self._load(step, abstract_state, partial)
    for step in self._latest_first():
      try:
        return self._load(step, abstract_state, partial)
      except DamagedError as error:
        _LOG.warning("%s Using the one before; the next save removes it.", error)
        self._damaged.add(step)
    raise DamagedError(
      self._directory, "none of its steps is intact; use another --workdir"
    )

  def read_config(self, step: int | None = None) -> dict[str, Any]:
    """Returns the configuration saved with a step, by default the latest readable.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      DamagedError: the record of that step, or of every step, is damaged.
    """
    return self._read_readable(step)["config"]

  def read_extra(self, step: int | None = None) -> dict[str, Any]:
    """Returns the `extra` saved with a step; as `read_config`."""
    return self._read_readable(step)["extra"]

  def wait(self) -> None:
    """Waits until the last save is finished; raises OSError if it failed."""
    if self._writer is None or self._saving is None:
      return
    try:
      self._saving.result()  # ends a thread, unlike Orbax's own wait
    except Exception as error:  # Orbax and TensorStore raise many types
      with contextlib.suppress(Exception):
        self._writer.wait()  # Orbax raises an error once in every thread that waits
      self._writer.reload()  # the save has replaced nothing
      reason = " ".join(str(error).split())[-300:]  # the cause comes last
      raise OSError(
        f"The checkpoint of step {self._record['step']} cannot be written to"
        f" {self._directory}, earlier ones are intact: {reason}"
      ) from error
    finally:
      self._saving = None

  def close(self) -> None:
    """Waits for the last save and ends Orbax's threads; raises as `wait` does."""
    try:
      self.wait()
    finally:
      writer, self._writer = self._writer, None
      if writer is not None:
        writer.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def _open_writer(self) -> ocp.training.Checkpointer:
    context = ocp.Context()
    # Otherwise a folder that cannot be made blocks the process for minutes.
    context.asynchronous.create_directories_asynchronously = False
    # Orbax deep-copies its options: a bound method would act on a copy of `self`.
    context.asynchronous.post_finalization_callback = lambda: self._complete()
    return ocp.training.Checkpointer(
      str(self._directory),
      context=context,
      preservation_policy=_LatestAndBest(self._keep, self._damaged, self._score),
      cleanup_tmp_directories=True,
    )

  def _complete(self) -> None:
    """Adds the record to a checkpoint.

    Orbax calls this in its thread when all files are written, before it renames the
    folder, so every checkpoint has its record.
    """
    (folder,) = self._directory.glob(f"{self._record['step']}.orbax-checkpoint-tmp*")
    files = record.file_checksums(folder)
    record.write(folder, self._record | {"files": files})

  def _load(
    self, step: int, abstract_state: PyTree, partial: bool
  ) -> tuple[PyTree, dict[str, Any]]:
    folder, saved = self._folder(step), self._read_record(step)
    new = {
      name: value(saved)
      for name, value in _LATER.items()
      if name not in saved["arrays"]
    }
    # Orbax's errors name neither the array that does not match nor the damaged file.
    record.check_layout(folder, saved, abstract_state, partial=partial, absent=new)
    record.check_files(folder, saved)
    abstract = jax.tree.map(_abstract, abstract_state)
    if partial or new:
      return _restore_by_name(folder, abstract, new), saved["extra"]
    state = ocp.load_checkpointables(str(folder), {"state": abstract})["state"]
    return state, saved["extra"]

  def _score(self, step: int) -> float:
    """Returns a step's `best_metric`, higher = better; -inf = unknown."""
    in_progress = not self._folder(step).exists()
    saved = self._record if in_progress else self._find_record(step)
    score = saved["metrics"].get(self._best_metric, math.nan) if saved else math.nan
    return -math.inf if math.isnan(score) else self._sign * score

  def _folder(self, step: int) -> pathlib.Path:
    return self._directory / str(step)

  def _latest_first(self) -> list[int]:
    if not (steps := self.steps()):
      raise FileNotFoundError(f"There is no checkpoint in {self._directory}.")
    return steps[::-1]

  def _read_record(self, step: int) -> Record:
    if step not in (steps := self._latest_first()):
      raise FileNotFoundError(
        f"There is no checkpoint of step {step} in {self._directory}, only of"
        f" {', '.join(map(str, steps[::-1]))}."
      )
    return record.read(self._folder(step))

  def _read_readable(self, step: int | None) -> Record:
    if step is not None:
      return self._read_record(step)
    for step in self._latest_first():
      if (saved := self._find_record(step)) is not None:
        return saved
    raise DamagedError(
      self._directory, "none of its steps is intact; use another --workdir"
    )

  def _find_record(self, step: int) -> Record | None:
    """Returns the record of a step; None = missing or damaged."""
    try:
      return record.read(self._folder(step))
    except DamagedError:
      return None


@dataclasses.dataclass(frozen=True)
class _LatestAndBest:
  """Orbax policy: keeps the latest intact checkpoints and the one of the best score.

  Orbax's `LatestN` counts damaged ones too, and `BestN` fails on checkpoints without
  the metric that it sorts by.
  """

  keep: int
  damaged: set[int]
  score: Callable[[int], float]

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    del context
    steps = [c.step for c in checkpoints if c.step not in self.damaged]
    best = max(steps, key=lambda step: (self.score(step), step))
    kept = {*steps[-self.keep :], best}
    return [c.step in kept for c in checkpoints]


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
  # Without a sharding, Orbax restores onto the devices of the run that saved it.
  sharding = getattr(x, "sharding", None)
  sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _restore_by_name(
  folder: pathlib.Path, abstract: PyTree, new: Mapping[str, Any]
) -> PyTree:
  """Reads the saved arrays that a pytree names; those in `new` get the value there."""
  needed = record.by_name(abstract)
  saved = ocp.checkpointables_metadata(str(folder)).metadata["state"]
  read = jax.tree_util.tree_map_with_path(
    lambda path, _: needed.get(record.name(path), ocp.PLACEHOLDER), saved
  )
  arrays = record.by_name(
    ocp.load_checkpointables(str(folder), {"state": read})["state"]
  )

  def array(path: jax.tree_util.KeyPath, x: jax.ShapeDtypeStruct) -> jax.Array:
    name = record.name(path)
    if name in new:
      return jax.device_put(np.asarray(new[name], x.dtype), x.sharding)
    return arrays[name]

  return jax.tree_util.tree_map_with_path(array, abstract)
