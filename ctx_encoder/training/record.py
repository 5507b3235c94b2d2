"""Checkpoint metadata and integrity checks.

`record.json` holds the step, the metrics, the configuration, other data for a resumed
run, the type and shape of every array, and the CRC-32 of every file: neither Orbax nor
TensorStore detects a flipped byte in an array.
"""

import json
import pathlib
import zlib
from collections.abc import Collection
from typing import Any

import jax

from ctx_encoder.data import files

PyTree = Any
Record = dict[str, Any]

_NAME = "record.json"


class DamagedError(ValueError):
  """Files of a checkpoint are missing or have changed since they were written."""

  def __init__(self, folder: pathlib.Path, problem: str):
    super().__init__(f"Checkpoint {folder} is damaged: {problem}.")


def name(path: jax.tree_util.KeyPath) -> str:
  """Returns the name of an array in a pytree, such as "generator/params/bias"."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def by_name(tree: PyTree) -> dict[str, Any]:
  """Returns {name: leaf} of a pytree."""
  return {name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def layout(state: PyTree) -> dict[str, str]:
  """Returns {name: type and shape} of the arrays of a pytree."""
  return {name: f"{x.dtype}{list(x.shape)}" for name, x in by_name(state).items()}


def file_checksums(folder: pathlib.Path) -> dict[str, int]:
  """Returns {relative path: CRC-32} of all files in the folder's subfolders."""
  return {
    file.relative_to(folder).as_posix(): _crc32(file)
    for file in sorted(folder.rglob("*"))
    if file.is_file() and file.parent != folder
  }


def write(folder: pathlib.Path, record: Record) -> None:
  """Writes the record with its own checksum, atomically."""
  files.write(
    folder / _NAME, json.dumps(record | {"crc32": _checksum(record)}, indent=1)
  )


def read(folder: pathlib.Path) -> Record:
  """Returns the record of a checkpoint.

  Raises:
    DamagedError: it is missing or has changed.
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
  """Raises DamagedError if a file is missing or has changed."""
  for name, checksum in record["files"].items():
    try:
      intact = _crc32(folder / name) == checksum
    except OSError as error:
      raise DamagedError(folder, f"cannot read {name} ({error.strerror})") from error
    if not intact:
      raise DamagedError(folder, f"{name} was altered")


def check_layout(
  folder: pathlib.Path,
  record: Record,
  state: PyTree,
  *,
  partial: bool = False,
  absent: Collection[str] = (),
) -> None:
  """Raises ValueError if the saved arrays do not match those of `state`.

  Args:
    folder: of the checkpoint, for the message.
    record: its record.
    state: arrays, or their shapes and types.
    partial: whether `state` is only a part of the saved state.
    absent: names of arrays that the checkpoint may lack.
  """
  saved, wanted = record["arrays"], layout(state)
  differences = [
    f"{name} is {saved.get(name, 'absent')} in the checkpoint,"
    f" {wanted.get(name, 'absent')} in the model"
    for name in (wanted if partial else wanted | saved)
    if saved.get(name) != wanted.get(name) and name not in absent
  ]
  if differences:
    more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
    raise ValueError(
      f"Checkpoint {folder} is of another model: {'; '.join(differences[:5])}{more}."
    )


def _checksum(record: Record) -> int:
  return zlib.crc32(json.dumps(record).encode())


def _crc32(path: pathlib.Path) -> int:
  checksum = 0
  with path.open("rb") as file:
    while block := file.read(1 << 20):
      checksum = zlib.crc32(block, checksum)
  return checksum
