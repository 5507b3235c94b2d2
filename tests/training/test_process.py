"""Signals and the watchdog: a process that is stuck ends all the same."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from ctx_encoder.training import process

_START = """
import hashlib, sys, time
from ctx_encoder.training.process import Interruption, Watchdog

def compiled_code():
  # Without the interpreter lock, and no signal handler is called before its end.
  hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)

def closing_blocks():
  try:
    time.sleep(60)
  finally:
    time.sleep(60)

print("ready", flush=True)
"""


def start(code):
  root = pathlib.Path(process.__file__).parents[2]
  started = subprocess.Popen(
    [sys.executable, "-c", _START + code],
    env=os.environ | {"PYTHONPATH": str(root)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert started.stdout
  assert started.stdout.readline() == "ready\n"
  time.sleep(0.5)
  return started


@pytest.mark.parametrize(
  "stuck", ["compiled_code", pytest.param("closing_blocks", marks=pytest.mark.slow)]
)
def test_the_second_ctrl_c_ends_a_stuck_process(stuck):
  started = start(f"with Interruption(): {stuck}()")
  started.send_signal(signal.SIGINT)
  time.sleep(0.3)
  assert started.poll() is None
  started.send_signal(signal.SIGINT)
  began = time.monotonic()
  out, err = started.communicate(timeout=30)
  assert started.returncode == 130, (out, err)
  assert process._GRACE - 0.2 < time.monotonic() - began < 10  # on a busy machine
  assert process._GRACE < 2


def test_a_process_that_ends_the_context_goes_on():
  code = """
try:
  with Interruption():
    time.sleep(30)
    time.sleep(30)
except KeyboardInterrupt:
  time.sleep(2.5)
  print("goes on")
"""
  started = start(code)
  for _ in range(2):
    started.send_signal(signal.SIGINT)
    time.sleep(0.3)
  out, err = started.communicate(timeout=30)
  assert (out, started.returncode) == ("goes on\n", 0)
  assert err == "\nSaving, then stopping ...\n"


@pytest.mark.slow
def test_the_watchdog_ends_a_process_without_progress():
  code = """
def last_words():
  return "Its last words."

with Watchdog(2 / 60, last_words) as watchdog:
  time.sleep(3)  # before the first progress
  for _ in range(4):
    watchdog.progress("counting")
    time.sleep(1)
  watchdog.unwatched(time.sleep, "reading images")(3)
  print("stuck", flush=True)
  compiled_code()
"""
  out, err = start(code).communicate(timeout=60)
  assert out == "stuck\n"
  reason, words = err.strip().split(" while ")
  assert reason.startswith("No progress for 0.0333333 minutes (watchdog_minutes)")
  assert words == "reading images. Its last words."


@pytest.mark.slow
def test_the_watchdog_does_not_wait_for_its_last_words():
  code = "with Watchdog(1 / 60, lambda: time.sleep(60)) as watchdog:\n"
  code += "  watchdog.progress('reading')\n  time.sleep(60)"
  started = start(code)
  _, err = started.communicate(timeout=30)
  assert started.returncode == 1
  assert err.endswith("while reading. \n")


def test_without_watchdog(monkeypatch):
  monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("it was ended"))
  with process.Watchdog(0, lambda: "") as watchdog:
    watchdog.progress("waiting")
    time.sleep(1.2)
