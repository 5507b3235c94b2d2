"""Checkpoints of a run: the latest few and the best, written in the background.

Orbax writes the arrays. The record next to them holds the metadata and checksums, see
`record`. A power loss at any moment leaves the last finished checkpoint intact:

1. Orbax writes `<step>.saving`, and the record is added.
2. Every file and folder of it is flushed to disk.
3. It is renamed to `<step>`, and that entry is flushed.
4. Checkpoints that are not kept are removed.
"""

import asyncio
import json
import logging
import math
import os
import pathlib
import re
import shutil
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from ctx_encoder.data import files
from ctx_encoder.training import orbax_leaks, record
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
orbax_leaks.prevent()


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

  Raises:
    NotADirectoryError: `directory` exists and is no folder.
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
    if os.path.lexists(self._directory) and not self._directory.is_dir():
      raise NotADirectoryError(
        f"{self._directory} is not a folder, or a link to one that does not exist:"
        " move it away."
      )
    self._keep = keep
    self._best_metric = best_metric
    self._sign = 1 if higher_is_better else -1
    self._damaged: set[int] = set()  # steps found damaged; the next save removes them
    self._thread: ThreadPoolExecutor | None = None
    self._saving: Future[None] | None = None
    self._record: Record = {}  # of the last save
    self._saves = 0

  def steps(self) -> list[int]:
    """Returns the steps of all finished checkpoints, ascending."""
    if not self._directory.is_dir():
      return []
    names = (path.name for path in self._directory.iterdir())
    return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))

  def latest(self) -> int | None:
    """Returns the last step; None = there is no checkpoint."""
    return max(self.steps(), default=None)

  def best(self) -> int | None:
    """Returns the step with the best `best_metric`, of equals the last.

    None = no checkpoint has that metric. Steps with a damaged record are left out, with
    a warning.
    """
    for step in self.steps():
      try:
        record.read(self._folder(step))
      except DamagedError as error:
        _LOG.warning("%s The best of the others is used.", error)
    return self._best()

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
    self._saves += 1
    if jax.process_index() == 0:
      files.make_folder(self._directory)
      for remains in self._directory.glob("[0-9]*.*"):  # of a save that was cut off
        _delete(remains)
    context = ocp.Context()
    # Otherwise a folder that cannot be made blocks the process for minutes.
    context.asynchronous.create_directories_asynchronously = False
    with context:
      response = ocp.save_checkpointables_async(
        str(self._unfinished), {"state": state}, overwrite=True
      )
    self._thread = self._thread or ThreadPoolExecutor(1, "save")
    self._saving = self._thread.submit(self._finish, response)

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
    saving, self._saving = self._saving, None
    if saving is None:
      return
    try:
      saving.result()
    except Exception as error:  # Orbax and TensorStore raise many types
      reason = " ".join(str(error).split())[-300:]  # the cause comes last
      raise OSError(
        f"The checkpoint of step {self._record['step']} cannot be written to"
        f" {self._directory}, earlier ones are intact: {reason}"
      ) from error

  def close(self) -> None:
    """Waits for the last save and ends its thread; raises as `wait` does."""
    try:
      self.wait()
    finally:
      thread, self._thread = self._thread, None
      if thread is not None:
        thread.shutdown()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def _finish(self, response: ocp.AsyncResponse[None]) -> None:
    """Waits for Orbax and commits the checkpoint; runs in a thread."""
    response.result()
    try:
      if jax.process_index() == 0:
        self._commit()
    finally:
      barrier = ocp.multihost.sync_global_processes(
        "committed", operation_id=f"{self._directory}.{self._saves}"
      )
      asyncio.run(barrier)
    if not self._folder(self._record["step"]).exists():
      raise OSError("the first process has failed")

  def _commit(self) -> None:
    """Gives a written checkpoint its record and its name, and removes old ones."""
    step = self._record["step"]
    unfinished, folder = self._unfinished, self._folder(step)
    checksums = record.file_checksums(unfinished)
    record.write(unfinished, self._record | {"files": checksums})
    files.sync(unfinished)
    if folder.exists():
      self._remove(folder)  # it is damaged
    files.rename(unfinished, folder)
    self._damaged.discard(step)
    intact = [other for other in self.steps() if other not in self._damaged]
    kept = {step, *intact[-self._keep :], self._best(self._damaged)}
    for other in self.steps():
      if other not in kept:
        self._remove(self._folder(other))

  def _remove(self, folder: pathlib.Path) -> None:
    """Removes a checkpoint so that a kill leaves no half of it under its name."""
    removed = folder.with_name(f"{folder.name}.removed")
    folder.rename(removed)
    _delete(removed)

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

  def _best(self, without: Collection[int] = ()) -> int | None:
    scores = {step: self._score(step) for step in self.steps() if step not in without}
    best = max(scores, key=lambda step: (scores[step], step), default=None)
    return None if best is None or scores[best] == -math.inf else best

  def _score(self, step: int) -> float:
    """Returns a step's `best_metric`, higher = better; -inf = unknown."""
    saved = self._find_record(step)
    score = saved["metrics"].get(self._best_metric, math.nan) if saved else math.nan
    return -math.inf if math.isnan(score) else self._sign * score

  @property
  def _unfinished(self) -> pathlib.Path:
    return self._directory / f"{self._record['step']}.saving"

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


def _delete(path: pathlib.Path) -> None:
  """Deletes a folder or a file; of a link only the link."""
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink()


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
