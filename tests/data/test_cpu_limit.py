"""A function ends after its CPU time, in any thread, and nothing is raised later."""

import contextlib
import threading
import time

import pytest

from ctx_encoder.data import cpu_limit
from ctx_encoder.data.cpu_limit import limit_cpu


@pytest.fixture(autouse=True)
def short_interval(monkeypatch):
  monkeypatch.setattr(cpu_limit, "_INTERVAL", 0.02)


def spin(seconds):
  end = time.thread_time() + seconds
  while time.thread_time() < end:
    pass
  return seconds


def spin_and_catch(seconds):
  try:
    return spin(seconds)
  except Exception:  # as a codec would
    return None


def test_results_and_errors_pass_through():
  assert limit_cpu(1, max, 3, 4) == 4
  assert limit_cpu(1, sorted, [1, 2], reverse=True) == [2, 1]
  with pytest.raises(ZeroDivisionError):
    limit_cpu(1, divmod, 1, 0)


def test_it_ends_what_takes_longer():
  began = time.thread_time()
  with pytest.raises(TimeoutError, match=r"more than 0\.1 s of CPU time"):
    limit_cpu(0.1, spin_and_catch, 60)
  assert time.thread_time() - began < 5
  assert limit_cpu(10, spin, 0.01) == 0.01  # the same thread goes on


def test_an_exception_that_got_lost_is_raised_again():
  def loses_one():
    with contextlib.suppress(BaseException):  # as the garbage collector's callbacks do
      spin(60)
    return spin(10)

  began = time.thread_time()
  with pytest.raises(TimeoutError):
    limit_cpu(0.1, loses_one)
  assert time.thread_time() - began < 5


def test_every_thread_has_its_own_limit():
  ended = {}

  def work(number):
    try:
      ended[number] = limit_cpu(0.1, spin, 60 if number % 2 else 0.01)
    except TimeoutError:
      ended[number] = "late"

  threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert ended == {0: 0.01, 1: "late", 2: 0.01, 3: "late"}


def test_waiting_does_not_count():
  limit_cpu(0.05, time.sleep, 0.3)


@pytest.mark.slow
def test_nothing_is_raised_after_a_call_that_ends_at_its_limit():
  late = 0
  for number in range(200):
    try:
      limit_cpu(0.02, spin, 0.015 + 0.0002 * number)
    except TimeoutError:
      late += 1
    spin(0.001)  # a stray exception would be raised here
  assert 0 < late < 200
