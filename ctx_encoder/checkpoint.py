"""Checkpoints of a run: the latest few and the best, written in the background.

Orbax writes the arrays. Beside them lies `record.json`: the configuration, the metrics,
what else the run needs to go on, the shape of every array and the CRC-32 of every file,
since neither Orbax nor TensorStore notices a flipped byte in an array.
"""

import contextlib
import dataclasses
import fnmatch
import json
import logging
import math
import os
import pathlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

PyTree = Any

_LOG = logging.getLogger(__name__)
_RECORD = "record.json"

# What may differ between two runs in one work directory. These fields say where data
# lies and how it is read, how long to train, what is reported and when; none of them
# changes the networks, the losses or the order of the batches.
MAY_CHANGE = (
  "name",
  "num_epochs",
  "num_steps",
  "steps_per_dispatch",
  "data.path",
  "data.data_dir",
  "data.download",
  "data.placement",
  "data.cache",
  "data.loader",
  "masks.path",
  "eval.*",
  "early_stopping.*",
  "checkpoint.*",
  "log.*",
)


def _important(record: logging.LogRecord) -> bool:
  orbax = f"{os.sep}orbax{os.sep}" in record.pathname
  return not orbax or record.levelno >= logging.WARNING


# Orbax tells every step of every save through absl's logger, which others use too.
logging.getLogger("absl").addFilter(_important)


class DamagedError(ValueError):
  """Files of a checkpoint are missing or are not what was written."""


class Checkpoints:
  """The checkpoints of one work directory: the latest few and the best.

  Reading creates and removes nothing, so that a run can be looked at while it goes on.
  With several processes, all of them make the same calls on one shared directory.

  Args:
    directory: folder of the checkpoints; the first `save` creates it, and removes what
      a killed save left in it.
    keep: number of latest checkpoints kept, at least 1.
    best_metric: name of the metric whose highest value marks the best checkpoint, which
      is kept too.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    keep: int = 2,
    best_metric: str = "eval/psnr_hole",
  ):
    if keep < 1:
      raise ValueError(f"keep must be at least 1 checkpoint, not {keep}")
    self._directory = pathlib.Path(directory).absolute()
    self._keep = keep
    self._best_metric = best_metric
    self._writer: ocp.training.Checkpointer | None = None
    self._saving: ocp.AsyncResponse[bool] | None = None
    self._record: dict[str, Any] = {}  # of the save in progress
    self._damaged: set[int] = set()  # steps found damaged; the next save removes them

  def steps(self) -> list[int]:
    """Returns the steps of all finished checkpoints, ascending."""
    if not self._directory.is_dir():
      return []
    return sorted(int(p.name) for p in self._directory.iterdir() if p.name.isdecimal())

  def latest(self) -> int | None:
    """Returns the last step; None where there is no checkpoint."""
    return max(self.steps(), default=None)

  def best(self) -> int | None:
    """Returns the step with the highest `best_metric`, the last of equals.

    None where no checkpoint has that metric.
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

    Waits for the save before. A step that is saved already is not written again; it
    gets `metrics` if it was saved without.

    Args:
      step: training step, the name of the checkpoint.
      state: pytree of arrays.
      config: configuration, JSON.
      metrics: name to value; without `best_metric` the checkpoint is never the best.
      extra: what else `restore` shall return, JSON.
    Raises:
      Exception: what this save or the one before failed with.
    """
    self.wait()
    step = int(step)
    metrics = {name: float(value) for name, value in (metrics or {}).items()}
    saved = None if step in self._damaged else self._find_record(step)
    if saved is not None:
      if metrics and not saved["metrics"] and jax.process_index() == 0:
        _write_record(self._directory / str(step), saved | {"metrics": metrics})
      return
    record = {
      "step": step,
      "metrics": metrics,
      "extra": dict(extra or {}),
      "config": dict(config),
      "arrays": _layout(state),
    }
    json.dumps(record)  # what is not JSON fails here and not in the background
    self._record = record
    self._damaged.discard(step)
    self._writer = self._writer or self._open()
    self._saving = self._writer.save_checkpointables_async(
      # Exactly when told: without `force`, no step that is before the last.
      step,
      {"state": state},
      force=True,
      overwrite=step in self.steps(),
    )

  def restore(
    self, abstract_state: PyTree, step: int | None = None
  ) -> tuple[PyTree, dict[str, Any]]:
    """Reads a checkpoint, or the latest one that is not damaged.

    Args:
      abstract_state: pytree of arrays or `jax.ShapeDtypeStruct`, of the structure that
        was saved. Arrays are restored onto its shardings, or onto the first device.
      step: a step of `steps()`; None = the latest, and where that is damaged the one
        before, with a warning.
    Returns:
      The state, and the `extra` it was saved with.
    Raises:
      FileNotFoundError: there is no such checkpoint.
      DamagedError: the checkpoint of that step, or every checkpoint, is damaged.
      ValueError: the saved arrays have other names, shapes or types.
    """
    self.wait()
    if step is not None:
      return self._load(abstract_state, step)
    for step in reversed(self._existing_steps()):
      try:
        return self._load(abstract_state, step)
      except DamagedError as error:
        _LOG.warning("%s Using the one before; the next save removes it.", error)
        self._damaged.add(step)
    raise self._all_damaged()

  def read_config(self, step: int | None = None) -> dict[str, Any]:
    """Returns the configuration saved with a step, by default the latest readable.

    Raises:
      FileNotFoundError: there is no such checkpoint.
      DamagedError: its record is damaged.
    """
    if step is not None:
      return self._read_record(step)["config"]
    for step in reversed(self._existing_steps()):
      if (record := self._find_record(step)) is not None:
        return record["config"]
    raise self._all_damaged()

  def wait(self) -> None:
    """Waits until the last save is finished; raises what it failed with."""
    if self._writer is None or self._saving is None:
      return
    try:
      self._saving.result()  # frees a thread too, which Orbax's own wait does not
    except Exception:
      with contextlib.suppress(Exception):
        self._writer.wait()  # Orbax raises an error once in every thread that waits
      self._writer.reload()  # what that save would have replaced is still there
      self._saving = None
      raise
    self._saving = None

  def close(self) -> None:
    """Waits for the last save and frees Orbax's threads; raises as `wait` does."""
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

  def _open(self) -> ocp.training.Checkpointer:
    context = ocp.Context()
    # Orbax deep-copies its options: a bound method would act on a copy of `self`.
    context.asynchronous.post_finalization_callback = lambda: self._seal()
    return ocp.training.Checkpointer(
      str(self._directory),
      context=context,
      preservation_policy=_LatestAndBest(self._keep, self._damaged, self._score),
      cleanup_tmp_directories=True,
    )

  def _seal(self) -> None:
    """Completes a checkpoint with its record.

    Orbax calls this in its thread once all files are written, before it renames the
    folder: no checkpoint is ever listed without its record.
    """
    (folder,) = self._directory.glob(f"{self._record['step']}.orbax-checkpoint-tmp*")
    # Orbax writes its own record once more, when renaming, and reads without it.
    files = {
      file.relative_to(folder).as_posix(): _crc32(file)
      for file in sorted(folder.rglob("*"))
      if file.is_file() and file.parent != folder
    }
    _write_record(folder, self._record | {"files": files})

  def _score(self, step: int) -> float:
    """Returns what the best checkpoint is chosen by; -inf where it is unknown."""
    in_progress = step not in self.steps()
    record = self._record if in_progress else self._find_record(step)
    score = (record or {"metrics": {}})["metrics"].get(self._best_metric, math.nan)
    return -math.inf if math.isnan(score) else score

  def _existing_steps(self) -> list[int]:
    steps = self.steps()
    if not steps:
      raise FileNotFoundError(f"There is no checkpoint in {self._directory}.")
    return steps

  def _all_damaged(self) -> DamagedError:
    return DamagedError(
      f"Every checkpoint in {self._directory} is damaged. Put back a copy of one, or"
      " start anew in another work directory."
    )

  def _find_record(self, step: int) -> dict[str, Any] | None:
    """Returns the record of a step; None where the step or its record is not whole."""
    try:
      return self._read_record(step)
    except (DamagedError, FileNotFoundError):
      return None

  def _read_record(self, step: int) -> dict[str, Any]:
    folder = self._directory / str(step)
    if not folder.is_dir():
      known = ", ".join(map(str, self._existing_steps()))
      raise FileNotFoundError(
        f"There is no checkpoint of step {step} in {self._directory}, only of {known}."
      )
    try:
      record = json.loads((folder / _RECORD).read_text())
      checksum = record.pop("crc32")
    except (OSError, ValueError, KeyError) as error:
      raise DamagedError(
        f"Checkpoint {folder} is damaged: cannot read {_RECORD} ({error!r})."
      ) from error
    if checksum != _checksum(record):
      raise DamagedError(f"Checkpoint {folder} is damaged: {_RECORD} was altered.")
    return record

  def _load(self, abstract_state: PyTree, step: int) -> tuple[PyTree, dict[str, Any]]:
    record = self._read_record(step)
    folder = self._directory / str(step)
    # Before Orbax reads: its own errors name neither the array nor the file.
    _check_layout(folder, record["arrays"], _layout(abstract_state))
    for name, crc in record["files"].items():
      try:
        intact = _crc32(folder / name) == crc
      except OSError as error:
        raise DamagedError(
          f"Checkpoint {folder} is damaged: cannot read {name} ({error.strerror})."
        ) from error
      if not intact:
        raise DamagedError(f"Checkpoint {folder} is damaged: {name} was altered.")
    abstract = {"state": jax.tree.map(_abstract, abstract_state)}
    return ocp.load_checkpointables(str(folder), abstract)["state"], record["extra"]


@dataclasses.dataclass(frozen=True)
class _LatestAndBest:
  """Keeps the latest whole checkpoints and the one with the highest score.

  Orbax's `LatestN` counts damaged ones too, and `BestN` fails on metrics that lack the
  one it sorts by.
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


def check_config(
  saved: Mapping[str, Any],
  current: Mapping[str, Any],
  ignore: Sequence[str] = MAY_CHANGE,
) -> None:
  """Checks that a run goes on under the configuration it was started with.

  Args:
    saved: configuration of a checkpoint, from `Checkpoints.read_config`.
    current: configuration of this run, nested dict.
    ignore: dotted names of fields that may differ; `*` stands for any part.
  Raises:
    ValueError: names every other field that differs, with both values.
  """
  absent = object()
  before, now = _flatten(saved), _flatten(json.loads(json.dumps(current)))
  differences = [
    f"{name}: {_show(before.get(name, absent), absent)} in the checkpoint,"
    f" {_show(now.get(name, absent), absent)} now"
    for name in sorted(before.keys() | now.keys())
    if before.get(name, absent) != now.get(name, absent)
    and not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)
  ]
  if differences:
    raise ValueError(
      f"The checkpoint has another configuration: {'; '.join(differences)}. Use another"
      " --workdir, or restore the values of the checkpoint."
    )


def _show(value: Any, absent: object) -> str:
  return "absent" if value is absent else repr(value)


def _flatten(tree: PyTree) -> dict[str, Any]:
  """Returns {dotted name: value} of a nested configuration."""
  leaves = jax.tree_util.tree_leaves_with_path(
    tree, is_leaf=lambda node: not isinstance(node, dict)
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): leaf
    for path, leaf in leaves
  }


def _layout(state: PyTree) -> dict[str, str]:
  """Returns {path: type and shape} of every array."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{list(x.shape)}"
    for path, x in jax.tree_util.tree_leaves_with_path(state)
  }


def _check_layout(
  folder: pathlib.Path, saved: dict[str, str], wanted: dict[str, str]
) -> None:
  differences = [
    f"{name} is {saved.get(name, 'absent')} in the checkpoint,"
    f" {wanted.get(name, 'absent')} in the model"
    for name in {**wanted, **saved}
    if saved.get(name) != wanted.get(name)
  ]
  if differences:
    more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
    raise ValueError(
      f"Checkpoint {folder} is of another model: {'; '.join(differences[:5])}{more}."
    )


def _abstract(x: Any) -> jax.ShapeDtypeStruct:
  sharding = getattr(x, "sharding", None)
  sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _write_record(folder: pathlib.Path, record: dict[str, Any]) -> None:
  """Writes the record with its own checksum, or leaves the one that is there."""
  text = json.dumps(record | {"crc32": _checksum(record)}, indent=1)
  new = folder / f"{_RECORD}.new"
  new.write_text(text)
  new.replace(folder / _RECORD)


def _checksum(record: dict[str, Any]) -> int:
  return zlib.crc32(json.dumps(record).encode())


def _crc32(path: pathlib.Path) -> int:
  crc = 0
  with path.open("rb") as file:
    while block := file.read(1 << 20):
      crc = zlib.crc32(block, crc)
  return crc
