"""Writes that survive a kill and a power loss; names of files in a folder."""

import collections
import errno
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence


def write(
  path: str | os.PathLike, content: bytes | str | Callable[[pathlib.Path], object]
) -> None:
  """Writes a file atomically: complete under its name, or not at all.

  The content goes to a temporary file in the same folder, which is flushed to disk
  and then renamed; so is the folder. Missing folders are created.

  Args:
    path: file to write or replace.
    content: bytes, text (written as UTF-8), or a function that writes the file at the
      path it is given, which has the extension of `path`.
  Raises:
    OSError: the file cannot be written; an existing file at `path` is unchanged.
  """
  path = pathlib.Path(path)
  make_folder(path.parent)
  new = path.with_name(f".new.{path.name}")
  try:
    if callable(content):
      content(new)
    else:
      new.write_bytes(content.encode() if isinstance(content, str) else content)
    sync(new)
    new.replace(path)
  except OSError as error:
    if error.errno and error.filename in (None, str(new)):  # such as a full disk
      raise OSError(error.errno, error.strerror, str(path)) from error
    raise
  finally:
    new.unlink(missing_ok=True)
  _flush(path.parent)


def write_folder(folder: pathlib.Path, make: Callable[[pathlib.Path], object]) -> None:
  """Writes a folder under a temporary name, flushes it to disk, and renames it.

  Args:
    folder: folder to write or replace. Missing parents are created.
    make: function that writes the folder at the path it is given.
  Raises:
    OSError: the folder cannot be written; an existing one is unchanged.
  """
  make_folder(folder.parent)
  with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new.") as temporary:
    new = pathlib.Path(temporary, "new")
    make(new)
    sync(new)
    if folder.exists():
      folder.rename(pathlib.Path(temporary, "old"))
    rename(new, folder)


def make_folder(folder: pathlib.Path) -> None:
  """Creates a folder and its missing parents, on disk when this returns."""
  missing = [path for path in (folder, *folder.parents) if not path.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  for path in reversed(missing):
    _flush(path.parent)


def sync(path: pathlib.Path) -> None:
  """Flushes a file, or a folder with all files and folders below it, to disk.

  A power loss after this returns loses nothing of them. The entry of `path` in its own
  folder is not flushed.
  """
  for below in path.rglob("*"):
    if not below.is_symlink():
      _flush(below)
  _flush(path)


def rename(path: pathlib.Path, new: pathlib.Path) -> None:
  """Renames a file or folder; the new entry is on disk when this returns."""
  path.rename(new)
  _flush(new.parent)


def _flush(path: pathlib.Path) -> None:
  """Flushes a file, or the entries of a folder, to disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    # Some network file systems cannot flush folders.
    if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
      raise
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
