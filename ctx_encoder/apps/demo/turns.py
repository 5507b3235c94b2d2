"""Queue that runs one job at a time and limits how many wait and how many upload."""

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import AsyncIterator
from typing import Literal

State = Literal["unknown", "waiting", "uploading", "filling"]


class Busy(Exception):
  """The queue is full; `retry_after` estimates when it will not be, in seconds."""

  def __init__(self, retry_after: int):
    super().__init__(f"Too many pictures are waiting; try again in {retry_after} s.")
    self.retry_after = retry_after


class Cancelled(Exception):
  """The client of a job has gone."""


class Job:
  """A request in the queue: what it is doing, and whether it is still wanted.

  Attributes:
    state: "waiting", "uploading" or "filling".
    done: share of the filling that is done, in [0, 1].
  """

  def __init__(self) -> None:
    self.state: State = "waiting"
    self.done = 0.0
    self._cancelled = threading.Event()

  def cancel(self) -> None:
    """Makes the next `report` raise."""
    self._cancelled.set()

  def report(self, done: float) -> None:
    """Notes the progress of the job; called in the thread that does it.

    Raises:
      Cancelled: after `cancel`.
    """
    if self._cancelled.is_set():
      raise Cancelled
    self.done = done


class Turns:
  """Runs one job at a time, in the order of arrival.

      async with turns.place(job):   # may upload
        async with turns.turn(job):  # may compute
          ...

  Args:
    waiting: number of jobs that may wait.
    uploads: number of jobs that may have their upload on this machine.
  """

  def __init__(self, waiting: int, uploads: int = 1):
    self._places = waiting + 1
    self._jobs: list[Job] = []  # in the order of arrival
    self._seconds = 1.0  # duration of the last turn
    self._uploads = asyncio.Semaphore(uploads)  # first come, first served
    self._lock = asyncio.Lock()

  def before(self, job: Job) -> int:
    """Returns the number of jobs that arrived earlier and are still here."""
    return self._jobs.index(job)

  @contextlib.asynccontextmanager
  async def place(self, job: Job) -> AsyncIterator[None]:
    """Context manager that waits until the upload of a job may be read.

    Raises:
      Busy: the queue is full.
    """
    if len(self._jobs) >= self._places:
      raise Busy(max(1, math.ceil(len(self._jobs) * self._seconds)))
    self._jobs.append(job)
    try:
      async with self._uploads:
        job.state = "uploading"
        yield
    finally:
      self._jobs.remove(job)

  @contextlib.asynccontextmanager
  async def turn(self, job: Job) -> AsyncIterator[None]:
    """Context manager that waits for the turn of a job with a place, and ends it."""
    job.state = "waiting"
    async with self._lock:
      job.state = "filling"
      began = time.monotonic()
      yield
      self._seconds = time.monotonic() - began
