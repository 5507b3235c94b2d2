"""A limit on the CPU time of a function, in any thread."""

import ctypes
import dataclasses
import functools
import os
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_INTERVAL = 0.25  # seconds between two looks at the running functions


class _Exceeded(BaseException):
  """Raised in the thread; no Exception, so that codecs do not catch it."""


@dataclasses.dataclass(eq=False)
class _Running:
  thread: int
  clock: int  # of the thread's CPU time
  end: float
  raised: bool = False


_running: dict[int, _Running] = {}  # by thread; whoever pops an entry ends it
_any_running = threading.Event()


def limit_cpu(
  seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
  """Calls a function, and ends it after some CPU time of its thread.

  Time in which the process is suspended or waits does not count. The function ends at
  the next Python instruction: a single call into C is not interrupted.

  Args:
    seconds: the limit, CPU time.
    function: called with the other arguments; must not call `limit_cpu` itself.
  Returns:
    What `function` returns.
  Raises:
    TimeoutError: it took longer; besides, whatever `function` raises.
  """
  _start_watching(os.getpid())
  thread = threading.get_ident()
  clock = time.pthread_getcpuclockid(thread)
  mine = _Running(thread, clock, time.clock_gettime(clock) + seconds)
  try:
    try:
      _running[thread] = mine
      _any_running.set()
      return function(*args, **kwargs)
    finally:
      if _running.pop(thread, None) is None:  # the watcher raises, or has raised
        while not mine.raised:
          time.sleep(0.001)
        time.sleep(0)  # a pending exception is raised here at the latest
  except _Exceeded:
    raise TimeoutError(f"took more than {seconds:g} s of CPU time") from None


@functools.cache
def _start_watching(process: int) -> None:
  """Starts the watcher, once in each process; threads do not survive a fork."""
  threading.Thread(target=_watch, name="cpu limit", daemon=True).start()


def _watch() -> None:
  raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
  while True:
    _any_running.wait()
    time.sleep(_INTERVAL)
    for thread, running in list(_running.items()):
      try:
        late = time.clock_gettime(running.clock) > running.end
      except OSError:  # the thread has ended
        continue
      # The entry may be a later call's by now: it would be popped in the name of this
      # one, so what was popped is checked.
      if late and _running.get(thread) is running and _running.pop(thread, None):
        raise_in(ctypes.c_ulong(thread), ctypes.py_object(_Exceeded))
        running.raised = True
    _any_running.clear()
    if _running:
      _any_running.set()
