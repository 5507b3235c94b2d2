"""What lies beside the arrays of a checkpoint, and the checks made with it.

`record.json` holds the step, the metrics, the configuration, what else the run needs to
go on, the type and shape of every array, and the CRC-32 of every file, since neither
Orbax nor TensorStore notices a flipped byte in an array.
"""

import fnmatch
import json
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

PyTree = Any
Record = dict[str, Any]

_NAME = "record.json"

# What may differ between two runs in one work directory. These fields say where data
# and weights lie and how they are read, how long to train and on what devices, what is
# reported and when; none of them changes the networks, the losses or the order of the
# batches.
MAY_CHANGE = (
  "name",
  "num_epochs",
  "num_steps",
  "steps_per_dispatch",
  "on_nonfinite",
  "sharding",
  "model.encoder_weights",
  "style.path",
  "data.path",
  "data.data_dir",
  "data.download",
  "data.max_bad_share",
  "data.placement",
  "data.cache",
  "data.loader",
  "masks.path",
  "eval.*",
  "early_stopping.*",
  "checkpoint.*",
  "log.*",
)


class DamagedError(ValueError):
  """A checkpoint lacks files, or they are not what was written."""

  def __init__(self, folder: pathlib.Path, problem: str):
    super().__init__(f"Checkpoint {folder} is damaged: {problem}.")


def layout(state: PyTree) -> dict[str, str]:
  """Returns {path: type and shape} of the arrays of a pytree."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): f"{x.dtype}{list(x.shape)}"
    for path, x in jax.tree_util.tree_leaves_with_path(state)
  }


def file_checksums(folder: pathlib.Path) -> dict[str, int]:
  """Returns {relative path: CRC-32} of all files in the folder's subfolders."""
  return {
    file.relative_to(folder).as_posix(): _crc32(file)
    for file in sorted(folder.rglob("*"))
    if file.is_file() and file.parent != folder
  }


def write(folder: pathlib.Path, record: Record) -> None:
  """Writes the record with its own checksum, in one move."""
  new = folder / f"{_NAME}.new"
  new.write_text(json.dumps(record | {"crc32": _checksum(record)}, indent=1))
  new.replace(folder / _NAME)


def read(folder: pathlib.Path) -> Record:
  """Returns the record of a checkpoint.

  Raises:
    DamagedError: it is missing or not what was written.
  """
  try:
    record = json.loads((folder / _NAME).read_text())
    checksum = record.pop("crc32")
  except (OSError, ValueError, KeyError) as error:
    raise DamagedError(folder, f"cannot read {_NAME} ({error!r})") from error
  if checksum != _checksum(record):
    raise DamagedError(folder, f"{_NAME} was altered")
  return record


def check_files(folder: pathlib.Path, record: Record) -> None:
  """Raises DamagedError if a file is missing or not what was written."""
  for name, checksum in record["files"].items():
    try:
      intact = _crc32(folder / name) == checksum
    except OSError as error:
      raise DamagedError(folder, f"cannot read {name} ({error.strerror})") from error
    if not intact:
      raise DamagedError(folder, f"{name} was altered")


def check_layout(folder: pathlib.Path, record: Record, state: PyTree) -> None:
  """Raises ValueError if the saved arrays are not those of `state`."""
  saved, wanted = record["arrays"], layout(state)
  differences = [
    f"{name} is {saved.get(name, 'absent')} in the checkpoint,"
    f" {wanted.get(name, 'absent')} in the model"
    for name in wanted | saved
    if saved.get(name) != wanted.get(name)
  ]
  if differences:
    more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
    raise ValueError(
      f"Checkpoint {folder} is of another model: {'; '.join(differences[:5])}{more}."
    )


def check_config(
  saved: Mapping[str, Any],
  current: Mapping[str, Any],
  ignore: Sequence[str] = MAY_CHANGE,
) -> None:
  """Checks that a run goes on under the configuration it was started with.

  Args:
    saved: configuration of a checkpoint, from `Checkpoints.read_config`.
    current: configuration of this run, nested dicts of what JSON can hold.
    ignore: dotted names of fields that may differ; `*` stands for anything.
  Raises:
    ValueError: names every other field that differs, with both values.
  """
  before, now = _flatten(saved), _flatten(json.loads(json.dumps(current)))
  differences = [
    f"{name}: {_show(before, name)} in the checkpoint, {_show(now, name)} now"
    for name in sorted(before.keys() | now.keys())
    if before.get(name, ...) != now.get(name, ...)
    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)
  ]
  if differences:
    raise ValueError(
      f"The checkpoint was made under another configuration: {'; '.join(differences)}."
      " Use another --workdir, or restore the values of the checkpoint."
    )


def _show(config: Mapping[str, Any], name: str) -> str:
  return repr(config[name]) if name in config else "absent"


def _flatten(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {dotted name: value}."""
  leaves = jax.tree_util.tree_leaves_with_path(
    config, is_leaf=lambda node: not isinstance(node, dict)
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): value
    for path, value in leaves
  }


def _checksum(record: Record) -> int:
  return zlib.crc32(json.dumps(record).encode())


def _crc32(path: pathlib.Path) -> int:
  checksum = 0
  with path.open("rb") as file:
    while block := file.read(1 << 20):
      checksum = zlib.crc32(block, checksum)
  return checksum
