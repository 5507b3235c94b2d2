"""Checkpoint metadata and integrity checks.

`record.json` holds the step, the metrics, the configuration, other data for a resumed
run, the type and shape of every array, and the SHA-256 of every file: neither Orbax nor
TensorStore detects a flipped byte in an array.
"""

import hashlib
import json
import pathlib
import zlib
from collections.abc import Callable, Collection
from io import BufferedReader
from typing import Any

import jax

from ctx_encoder.data import files
from ctx_encoder.data.paths import open_file, read_file

PyTree = Any
Record = dict[str, Any]

_NAME = "record.json"
_FORMAT = 2  # 1, not written in the record, had CRC-32 instead of SHA-256
_TYPES = {
  "step": int,
  "metrics": dict,
  "extra": dict,
  "config": dict,
  "arrays": dict,
  "files": dict,
}


class DamagedError(ValueError):
  """Files of a checkpoint are missing or have changed since they were written."""

  def __init__(self, folder: pathlib.Path, problem: str):
    super().__init__(f"Checkpoint {folder} is damaged: {problem}.")


class NewerFormatError(ValueError):
  """A checkpoint was written by a later version of this package."""


def name(path: jax.tree_util.KeyPath) -> str:
  """Returns the name of an array in a pytree, such as "generator/params/bias"."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def by_name(tree: PyTree) -> dict[str, Any]:
  """Returns {name: leaf} of a pytree."""
  return {name(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def layout(state: PyTree) -> dict[str, str]:
  """Returns {name: type and shape} of the arrays of a pytree."""
  return {name: f"{x.dtype}{list(x.shape)}" for name, x in by_name(state).items()}


def file_checksums(folder: pathlib.Path) -> dict[str, str]:
  """Returns {relative path: SHA-256} of all files in a folder and below."""
  checksums = {}
  for path in sorted(folder.rglob("*")):
    if path.is_file():
      with open_file(path) as file:
        checksums[path.relative_to(folder).as_posix()] = _sha256(file)
  return checksums


def write(folder: pathlib.Path, record: Record) -> None:
  """Writes the record with its own checksum, atomically."""
  record = record | {"format": _FORMAT}
  content = record | {"sha256": _checksum(record, hashlib.sha256)}
  files.write(folder / _NAME, json.dumps(content, indent=1))


def read(folder: pathlib.Path) -> Record:
  """Returns the record of a checkpoint.

  Raises:
    DamagedError: it is missing, has changed, or is of another step than the folder.
    NewerFormatError: a later version of this package wrote it.
  """
  try:
    record = json.loads(read_file(folder / _NAME))
    if "sha256" in record:
      intact = record.pop("sha256") == _checksum(record, hashlib.sha256)
    else:
      intact = record.pop("crc32") == _checksum(record, zlib.crc32)
  # Of a list or a number; of brackets nested too deep.
  except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
    raise DamagedError(folder, f"cannot read {_NAME} ({error!r})") from error
  except RecursionError as error:
    raise DamagedError(folder, f"cannot read {_NAME} (nested too deep)") from error
  if not intact:
    raise DamagedError(folder, f"{_NAME} was altered")
  if (number := record.get("format", 1)) not in (1, _FORMAT):
    raise NewerFormatError(
      f"Checkpoint {folder} has format {number}, this version of ctx_encoder reads up"
      f" to {_FORMAT}: update ctx_encoder."
    )
  for name, kind in _TYPES.items():
    if not isinstance(record.get(name), kind):
      raise DamagedError(folder, f"{_NAME} lacks {name!r}")
  if not all(isinstance(value, int | float) for value in record["metrics"].values()):
    raise DamagedError(folder, f"a metric in {_NAME} is not a number")
  if str(record["step"]) != folder.name:
    raise DamagedError(folder, f"{_NAME} is of step {record['step']}")
  return record


def check_files(folder: pathlib.Path, record: Record) -> None:
  """Raises DamagedError if a file is missing or has changed."""
  for name, checksum in record["files"].items():
    digest = _crc32 if isinstance(checksum, int) else _sha256
    try:
      with open_file(folder / name) as file:
        intact = digest(file) == checksum
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


def _checksum(record: Record, digest: Callable[[bytes], Any]) -> str | int:
  found = digest(json.dumps(record).encode())
  return found if isinstance(found, int) else found.hexdigest()


def _sha256(file: BufferedReader) -> str:
  return hashlib.file_digest(file, "sha256").hexdigest()


def _crc32(file: BufferedReader) -> int:
  checksum = 0
  while block := file.read(1 << 20):
    checksum = zlib.crc32(block, checksum)
  return checksum
