"""The wrapper of all commands: exit codes and one line for each error."""

import importlib
import types

import pytest

from ctx_encoder.apps import cli


def run(monkeypatch, error):
  """Runs a command that raises `error`; returns the exit code."""

  def fail(args):
    raise error

  command = types.SimpleNamespace(
    __doc__="Fails.", add_arguments=lambda parser: None, run=fail
  )
  monkeypatch.setattr(importlib, "import_module", lambda name: command)
  return cli.main(["export-keras"])


def test_errors_are_one_line(monkeypatch, capsys):
  missing = ModuleNotFoundError("No module named 'h5py'", name="h5py")
  for error, line in (
    (ValueError("--size must be\n  at least 1."), ": --size must be at least 1."),
    (
      FileNotFoundError(2, "No such file", "a.png"),
      ": [Errno 2] No such file: 'a.png'",
    ),
    (ImportError("x needs y: pip install y"), ": x needs y: pip install y"),
    (
      missing,
      " needs h5py, which is not installed: pip install 'ctx-encoder[train,weights]'",
    ),
    (ValueError(), ": ValueError()"),
  ):
    assert run(monkeypatch, error) == 1
    assert capsys.readouterr() == ("", f"ctx-encoder export-keras{line}\n")


def test_an_interrupt_has_its_exit_code(monkeypatch, capsys):
  assert run(monkeypatch, KeyboardInterrupt()) == 130
  assert capsys.readouterr() == ("", "")


def test_bugs_keep_their_traceback(monkeypatch):
  for error in (TypeError("a bug"), KeyError("a bug")):
    with pytest.raises(type(error), match="a bug"):
      run(monkeypatch, error)
