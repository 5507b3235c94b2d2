"""Ctrl-C and SIGTERM as a question that a loop asks between steps."""

import contextlib
import signal
import sys
from typing import Any


class Interruption:
  """Within it SIGINT and SIGTERM only set `requested`; a second SIGINT ends at once."""

  def __init__(self):
    self.requested = False
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "Interruption":
    with contextlib.suppress(
      ValueError
    ):  # outside the main thread there are no handlers
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
