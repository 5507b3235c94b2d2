"""One job at a time, and not too many that wait."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator


class Busy(Exception):
  """Enough are waiting already; `retry_after` says for how many seconds, about."""

  def __init__(self, retry_after: int):
    super().__init__(f"Too many pictures are waiting; try again in {retry_after} s.")
    self.retry_after = retry_after


class Turns:
  """Lets one in at a time, in the order of arrival.

      async with turns.wait():
        ...

  Args:
    places: how many may wait.
  """

  def __init__(self, places: int):
    self._places = places
    self._present = 0  # at work or waiting
    self._seconds = 1.0  # that the last one took
    self._door = asyncio.Lock()  # serves first whoever came first

  @contextlib.asynccontextmanager
  async def wait(self) -> AsyncIterator[None]:
    """Waits for a turn, and ends it with the context.

    Raises:
      Busy: all places to wait are taken.
    """
    if self._present > self._places:
      raise Busy(max(1, math.ceil(self._present * self._seconds)))
    self._present += 1
    try:
      async with self._door:
        began = time.monotonic()
        yield
        self._seconds = time.monotonic() - began
    finally:
      self._present -= 1
