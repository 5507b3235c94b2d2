"""Reading regular files only, and showing their names."""

import errno
import os
import stat

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
  _check_regular(os.stat(path))  # opening a device may already have an effect
  with open(path, "rb", opener=_open_without_waiting) as file:
    status = os.fstat(file.fileno())  # it may have been replaced in the meantime
    _check_regular(status)
    size = status.st_size - offset if length is None else length
    if size > MAX_BYTES:
      raise OSError(errno.EFBIG, f"{size} bytes, above {MAX_BYTES}")
    file.seek(offset)
    return file.read(max(0, size))


def _open_without_waiting(path: str, flags: int) -> int:
  return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


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
