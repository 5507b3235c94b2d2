"""Queue that runs one job at a time and limits how many wait."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator


class Busy(Exception):
  """The queue is full; `retry_after` estimates when it will not be, in seconds."""

  def __init__(self, retry_after: int):
    super().__init__(f"Too many pictures are waiting; try again in {retry_after} s.")
    self.retry_after = retry_after


class Turns:
  """Runs one job at a time, in the order of arrival.

      async with turns.wait():
        ...

  Args:
    places: number of jobs that may wait.
  """

  def __init__(self, places: int):
    self._places = places
    self._present = 0  # jobs running or waiting
    self._seconds = 1.0  # duration of the last job
    self._lock = asyncio.Lock()  # first come, first served

  @contextlib.asynccontextmanager
  async def wait(self) -> AsyncIterator[None]:
    """Context manager that waits for the turn of a job, and ends it.

    Raises:
      Busy: the queue is full.
    """
    if self._present > self._places:
      raise Busy(max(1, math.ceil(self._present * self._seconds)))
    self._present += 1
    try:
      async with self._lock:
        began = time.monotonic()
        yield
        self._seconds = time.monotonic() - began
    finally:
      self._present -= 1
