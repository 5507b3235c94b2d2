"""The command `demo`: arguments, addresses, the offer to train, a run served."""

import os
import pathlib
import re
import signal
import subprocess
import sys
from unittest import mock

import httpx2
import numpy as np
import pytest
import serving
import tiny
from serving import form, hole, picture, pixels

from ctx_encoder import xla
from ctx_encoder.apps import cli, demo
from ctx_encoder.apps.commands import demo as command
from ctx_encoder.apps.demo import server

ROOT = pathlib.Path(__file__).parents[2]


def run(*arguments):
  # Keeps the compilation cache of the tests.
  with mock.patch.object(xla, "cache_in"):
    return cli.main(["demo", "--no-browser", *map(str, arguments)])


def test_bad_arguments_are_one_line(capsys):
  for arguments, message in (
    (["--port", "70000"], "--port must be within [0, 65535], not 70000."),
    (["--max-pixels", "0"], "--max-pixels must be within [1, "),
    (["--max-megabytes", "-1"], "--max-megabytes must be within [1, "),
    (["--host", "no.such.host.invalid"], "There is no host 'no.such.host.invalid'"),
    (["--port", "0", "--workdir", "nowhere"], "There is no checkpoint in "),
  ):
    assert run(*arguments) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"ctx-encoder demo: {message}")
    assert "\n" not in error


def test_a_port_in_use(capsys):
  with demo.bind("127.0.0.1", 0) as bound:
    port = bound.getsockname()[1]
    assert run("--port", port, "--workdir", "nowhere") == 1
  error = capsys.readouterr().err.strip()
  assert error == (
    f"ctx-encoder demo: Port {port} of 127.0.0.1 is in use; name another with --port."
  )
  with demo.bind("127.0.0.1", port):  # free again at once
    pass


def test_addresses_for_the_browser():
  for host, expected in {"127.0.0.1": "127.0.0.1", "0.0.0.0": "127.0.0.1"}.items():
    with demo.bind(host, 0) as bound:
      port = bound.getsockname()[1]
      assert server.url(bound) == f"http://{expected}:{port}/"


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_the_command_offers_to_train(answer, tmp_path, monkeypatch, capsys):
  trained = []

  def train(arguments, check):
    trained.append([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, 0)

  monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
  monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
  monkeypatch.setattr("builtins.input", lambda question: answer)
  monkeypatch.setattr(command.subprocess, "run", train)
  assert run("--port", 0, "--workdir", tmp_path / "run") == 1  # no network was trained
  assert "python launch.py --config=" in capsys.readouterr().err
  expected = [f"--config={ROOT}/configs/quickstart.py", f"--workdir={tmp_path}/run"]
  assert [one[2:] for one in trained] == ([expected] if answer == "y" else [])
  assert all(pathlib.Path(one[1]) == ROOT / "launch.py" for one in trained)


def test_the_command_starts_the_server(monkeypatch, capsys):
  served = []

  def serve(inpainter, bound, limits, *, hosts, ready):
    ready()
    served.append((inpainter.name, server.url(bound), limits, hosts))

  monkeypatch.setattr(command.Inpainter, "shipped", serving.inpainter)
  monkeypatch.setattr(demo, "serve", serve)
  limited = ["--max-pixels", 900, "--max-megabytes", 2]
  assert run("--port", 0, "--allow-host", "paint.example", *limited) == 0
  ((name, url, limits, hosts),) = served
  assert name == "white <b>"
  assert limits == demo.Limits(pixels=900, bytes=2_000_000)
  assert hosts == demo.allowed_hosts("127.0.0.1", ["paint.example"])
  assert "paint.example" in hosts
  line = f"The network of the package fills holes at {url}  (Ctrl-C stops it)\n"
  assert capsys.readouterr().out == line


@pytest.mark.slow
def test_the_command_serves_a_run(tmp_path):
  workdir = tiny.untrained_run(tmp_path / "run", 5, model__width=1 / 16)
  command = [sys.executable, "-m", "ctx_encoder.apps.cli", "demo", "--no-browser"]
  process = subprocess.Popen(
    [*command, "--port", "0", "--workdir", str(workdir)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    env=os.environ | {"PYTHONUNBUFFERED": "1"},
  )
  try:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert found, process.communicate()[1]
    info = httpx2.get(f"{found[0]}api/info").json()
    assert info["image_size"] == 16
    answer = httpx2.post(f"{found[0]}api/inpaint", files=form(), timeout=60)
    completed, mask = pixels(answer.content), hole()
    np.testing.assert_array_equal(completed[~mask], picture()[~mask])
    assert (completed[mask] != picture()[mask]).any()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
  finally:
    process.kill()
    process.communicate()
