"""The process of a run: lock on the work directory, stop signals, watchdog."""

import contextlib
import errno
import fcntl
import math
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ctx_encoder.data import files

LOCK = "lock"
_GRACE = 1.5  # seconds that a second SIGINT leaves for closing files and threads


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
    files.make_folder(folder)
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

  A second SIGINT raises KeyboardInterrupt. If that does not end the context within 1.5
  seconds, because a thread reads from a disk that does not answer, or compiled code
  runs, it ends the process with code 130.
  """

  def __init__(self):
    self.requested = False
    self._before: dict[int, Any] = {}
    self._reader, self._writer = os.pipe()
    self._thread = threading.Thread(target=self._watch, daemon=True)

  def __enter__(self) -> "Interruption":
    # Outside the main thread handlers cannot be set.
    with contextlib.suppress(ValueError):
      for number in (signal.SIGINT, signal.SIGTERM):
        self._before[number] = signal.signal(number, self._note)
      os.set_blocking(self._writer, False)
      self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
    self._thread.start()
    return self

  def __exit__(self, *exception: object) -> None:
    if self._before:
      signal.set_wakeup_fd(self._wakeup)
    for number, handler in self._before.items():
      signal.signal(number, handler)
    os.write(self._writer, b"\0")
    self._thread.join()
    os.close(self._reader)
    os.close(self._writer)

  def _note(self, number: int, frame: Any) -> None:
    if self.requested and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.requested = True
    print("\nSaving, then stopping ...", file=sys.stderr)

  def _watch(self) -> None:
    """Receives the numbers of signals, and 0 at the end of the context.

    Python calls handlers only in the main thread, and only between its instructions.
    """
    requested = False
    while number := os.read(self._reader, 1)[0]:
      if requested and number == signal.SIGINT:
        closed = select.select([self._reader], [], [], _GRACE)[0]
        if closed and not os.read(self._reader, 1)[0]:
          return
        os._exit(130)
      requested = requested or number in (signal.SIGINT, signal.SIGTERM)


class Watchdog:
  """Context that ends the process if it makes no progress for some minutes.

  Args:
    minutes: 0 = never.
    last_words: returns what to print after the reason. It may block.
  """

  def __init__(self, minutes: float, last_words: Callable[[], str]):
    self._minutes = minutes
    self._last_words = last_words
    self._idle = -math.inf  # seconds
    self._doing = ""
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._watch, daemon=True)

  def __enter__(self) -> "Watchdog":
    if self._minutes:
      self._thread.start()
    return self

  def __exit__(self, *exception: object) -> None:
    self._ended.set()
    if self._minutes:
      self._thread.join()

  def progress(self, doing: str) -> None:
    """Starts the minutes anew; `doing` is what comes next, such as "saving"."""
    self._idle, self._doing = 0, doing

  def pause(self) -> None:
    """Stops counting until the next `progress`."""
    self._idle = -math.inf

  def unwatched(self, function: Callable, doing: str) -> Callable:
    """Returns a function during which time does not count, since it may compile."""

    def call(*args):
      self.pause()
      result = function(*args)
      self.progress(doing)
      return result

    return call

  def _watch(self) -> None:
    # Seconds are counted, so that a process that was suspended is not ended.
    while not self._ended.wait(1):
      self._idle += 1
      if self._idle >= 60 * self._minutes:
        self._end()

  def _end(self) -> None:
    words: list[str] = []
    asking = threading.Thread(target=lambda: words.append(self._last_words()))
    asking.daemon = True  # the work directory may be what does not answer
    asking.start()
    asking.join(5)
    print(
      f"\nNo progress for {self._minutes:g} minutes (watchdog_minutes) while"
      f" {self._doing}. {''.join(words)}",
      file=sys.stderr,
      flush=True,
    )
    os._exit(1)
