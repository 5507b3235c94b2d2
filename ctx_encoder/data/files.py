"""Atomic writes, and the names of files in a folder that a command fills."""

import collections
import os
import pathlib
from collections.abc import Callable, Sequence


def write(
  path: str | os.PathLike, content: bytes | str | Callable[[pathlib.Path], object]
) -> None:
  """Writes a file atomically: complete under its name, or not at all.

  The content goes to a temporary file in the same folder, which is flushed to disk
  and then renamed. Missing folders are created.

  Args:
    path: file to write or replace.
    content: bytes, text (written as UTF-8), or a function that writes the file at the
      path it is given, which has the extension of `path`.
  Raises:
    OSError: the file cannot be written; an existing file at `path` is unchanged.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  new = path.with_name(f".new.{path.name}")
  try:
    if callable(content):
      content(new)
    else:
      new.write_bytes(content.encode() if isinstance(content, str) else content)
    _flush(new)
    new.replace(path)
  except OSError as error:
    if error.errno and error.filename in (None, str(new)):  # such as a full disk
      raise OSError(error.errno, error.strerror, str(path)) from error
    raise
  finally:
    new.unlink(missing_ok=True)
  _flush(path.parent)


def _flush(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def visible_files(folder: pathlib.Path) -> set[str]:
  """Returns the relative names of all files in a folder and below, hidden ones not."""
  return {
    file.relative_to(folder).as_posix()
    for file in folder.rglob("*")
    if file.is_file() and not file.name.startswith(".")
  }


def stems(names: Sequence[str]) -> list[str]:
  """Removes extensions, except from names that differ only in their extension."""
  bare = [str(pathlib.PurePosixPath(name).with_suffix("")) for name in names]
  counts = collections.Counter(stem.lower() for stem in bare)
  return [
    stem if counts[stem.lower()] == 1 else name
    for stem, name in zip(bare, names, strict=True)
  ]
