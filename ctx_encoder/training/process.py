"""The process of a run: its lock on the work directory, and its stop signals."""

import contextlib
import errno
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOCK = "lock"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[Path]:
  """Locks a folder for this process until the context ends.

  The operating system releases the lock when the process ends, even if it is killed. A
  folder that was made here and is still empty at the end is removed.

  Args:
    folder: made if it does not exist.

  Raises:
    OSError: it cannot be written to, another process has locked it, or the disk is or
      becomes full.
  """
  path = folder / LOCK
  made = _first_missing(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
  except OSError as error:
    raise OSError(
      f"The work directory {folder} cannot be written to: {error.strerror}. Use"
      " another --workdir."
    ) from error
  with file:
    _lock(file, folder)
    try:
      yield folder
    except OSError as error:
      if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise
      raise OSError(
        f"No space is left for the work directory {folder}. Finished checkpoints are"
        " intact: free some space, and the same command resumes from the last."
      ) from error
    finally:
      if made and list(folder.iterdir()) == [path]:
        path.unlink()
        for empty in [folder, *folder.parents]:
          empty.rmdir()
          if empty == made:
            break


def _lock(file, folder: Path) -> None:
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    file.seek(0)
    owner = file.read().strip() or "unknown"
    raise OSError(
      f"Another run, process {owner}, uses {folder}."
      " Wait for its end, or use another --workdir."
    ) from error
  except OSError:
    return  # a file system without locks
  file.truncate(0)
  file.write(str(os.getpid()))
  file.flush()


def _first_missing(folder: Path) -> Path | None:
  """Returns the uppermost of `folder` and its parents that does not exist."""
  missing = [path for path in (folder, *folder.parents) if not path.exists()]
  return missing[-1] if missing else None


class Interruption:
  """Context in which SIGINT and SIGTERM set `requested`.

  A second SIGINT raises KeyboardInterrupt.
  """

  def __init__(self):
    self.requested = False
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "Interruption":
    # Outside the main thread handlers cannot be set.
    with contextlib.suppress(ValueError):
      for number in (signal.SIGINT, signal.SIGTERM):
        self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: Any) -> None:
    if self.requested and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.requested = True
    print("\nSaving, then stopping ...", file=sys.stderr)
