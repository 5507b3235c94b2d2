"""Reading regular files only, and showing their names."""

import errno
import os
import stat
from io import BufferedReader

MAX_BYTES = 2**30


def read_file(
  path: str | os.PathLike, offset: int = 0, length: int | None = None
) -> bytes:
  """Reads a regular file, or part of one, and never waits for a pipe or a device.

  Args:
    path: the file, or a link to it.
    offset: first byte.
    length: number of bytes; None = up to the end. Fewer are returned if it ends before.
  Raises:
    OSError: it cannot be read, is not a regular file, or has more than `MAX_BYTES`.
  """
  with open_file(path) as file:
    size = os.fstat(file.fileno()).st_size - offset if length is None else length
    if size > MAX_BYTES:
      raise OSError(errno.EFBIG, f"{size} bytes, above {MAX_BYTES}")
    file.seek(offset)
    return file.read(max(0, size))


def open_file(path: str | os.PathLike) -> BufferedReader:
  """Opens a regular file, or a link to one, to read; raises as `read_file`."""
  _check_regular(os.stat(path))  # opening a device may already have an effect
  return open(path, "rb", opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
  descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
  try:
    _check_regular(os.fstat(descriptor))  # it may have been replaced in the meantime
  except OSError:
    os.close(descriptor)
    raise
  return descriptor


def _check_regular(status: os.stat_result) -> None:
  if stat.S_ISDIR(status.st_mode):
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
  if not stat.S_ISREG(status.st_mode):
    raise OSError(errno.EINVAL, "not a regular file, but a pipe, socket or device")


def printable(text: str) -> str:
  r"""Escapes what a terminal obeys instead of showing, a line break as `\\n`.

  Bytes of a file's name that are not UTF-8 are escaped too.
  """
  return "".join(
    char if char.isprintable() else char.encode("unicode_escape", "replace").decode()
    for char in text
  )
