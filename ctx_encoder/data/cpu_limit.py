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
_AGAIN = 0.25  # seconds of CPU time after which the exception is raised again


class _Exceeded(BaseException):
  """Raised in the thread; no Exception, so that codecs do not catch it."""


@dataclasses.dataclass(eq=False)
class _Running:
  clock: int  # of the thread's CPU time
  end: float


_running: dict[int, _Running] = {}  # by thread
_lock = threading.Lock()
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
  try:
    try:
      _running[thread] = _Running(clock, time.clock_gettime(clock) + seconds)
      _any_running.set()
      return function(*args, **kwargs)
    finally:
      _forget(thread)
  except _Exceeded:
    raise TimeoutError(f"took more than {seconds:g} s of CPU time") from None


def _forget(thread: int) -> None:
  """Ends the watch over this thread, and takes an exception that is on its way."""
  while True:
    try:
      with _lock:
        _running.pop(thread, None)
      time.sleep(0)  # a pending exception is raised here at the latest
      return
    except _Exceeded:
      pass


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
      with _lock:
        if _running.get(thread) is not running:
          continue
        if time.clock_gettime(running.clock) > running.end:
          raise_in(ctypes.c_ulong(thread), ctypes.py_object(_Exceeded))
          # Python drops an exception that meets a destructor: it is raised again.
          running.end += _AGAIN
    _any_running.clear()
    if _running:
      _any_running.set()
