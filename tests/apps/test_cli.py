"""The wrapper of all commands: exit codes and one line for each error."""

import errno
import importlib.util
import logging
import os
import pathlib
import subprocess
import sys
import types

import pytest
from command import call, refusal

from ctx_encoder import config
from ctx_encoder.apps import cli, console
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.data import files

ROOT = pathlib.Path(__file__).parents[2]


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
  where = "." if pathlib.Path.cwd() == ROOT else ROOT
  missing = ModuleNotFoundError("No module named 'h5py'", name="h5py")
  tensorflow = ModuleNotFoundError("No module", name="tensorflow.data")
  for error, line in (
    (ValueError("--size must be\n  at least 1."), ": --size must be at least 1."),
    (
      FileNotFoundError(2, "No such file", "a.png"),
      ": [Errno 2] No such file: 'a.png'",
    ),
    (ImportError("x needs y: pip install y"), ": x needs y: pip install y"),
    (
      missing,
      f" needs h5py, which is not installed: pip install -e '{where}[train,weights]'",
    ),
    (
      tensorflow,
      " needs tensorflow.data, which is not installed:"
      f" pip install -e '{where}[train,tf]'",
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


def test_a_misspelt_option_or_command_is_named_with_the_nearest(capsys):
  for arguments, line in (
    (["inpaint", "--imgae", "a.png"], "inpaint: there is no --imgae; nearest: --image"),
    (["masks", "--outptu=a.png"], "masks: there is no --outptu; nearest: --output"),
    (
      ["masks", "--qqqqqqqq"],
      "masks: there is no --qqqqqqqq. See ctx-encoder masks --help\n",
    ),
  ):
    with pytest.raises(SystemExit) as ended:
      call(*arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ctx-encoder {line}")
    assert error.count("\n") == 1
  assert call("evalaute") == 2
  first, *_ = capsys.readouterr().err.splitlines()
  assert first == "ctx-encoder: there is no command 'evalaute'; nearest: evaluate."


def test_options_may_be_abbreviated_and_missing_ones_are_one_line(tmp_path, capsys):
  assert call("masks", "--out", tmp_path / "a.png", "--siz=16", "--coun", 1) == 0
  capsys.readouterr()
  with pytest.raises(SystemExit):
    call("masks")
  assert capsys.readouterr().err == (
    "ctx-encoder masks: the following arguments are required: --output."
    " See ctx-encoder masks --help\n"
  )


def test_numbers_have_a_range_and_help_ends_with_the_default(capsys):
  parser = Parser("draw", "Draws.")
  parser.number("--size", 8, "side", 4, 16)
  parser.number("--seeds", [0, 1], "of each", 0)
  parser.field(config.FIELDS["augment.hue"], 0.25)
  parser.add_argument("--all", action="store_true", help="everything")
  parser.add_argument("--none", help="nothing")
  parser.add_argument("--said", default=3, help="own (default: three)")
  args = parser.parse(["--seeds", "3", "4", "--hue", "0.5"])
  assert (args.size, args.seeds, args.hue) == (8, [3, 4], 0.5)
  for arguments, message in (
    (["--size", "17"], "--size must be within [4, 16], not 17."),
    (["--seeds", "1", "-1"], "--seeds must be at least 0, not -1."),
    (["--hue", "nan"], "--hue must be within [0, 0.5], not nan."),
  ):
    with pytest.raises(ValueError, match="must be") as raised:
      parser.parse(arguments)
    assert str(raised.value) == message
  text = " ".join(parser.format_help().split())
  for line in ("side (default: 8)", "of each (default: 0 1)", "circle (default: 0.25)"):
    assert line in text
  assert text.endswith(
    "--all everything --none NONE nothing --said SAID own (default: three)"
  )


def test_a_full_disk_is_reported_with_the_file(tmp_path, capsys):
  page = tmp_path / "masks.png"
  temporary = tmp_path / ".new.masks.png"
  temporary.symlink_to("/dev/full")
  error = refusal(capsys, "masks", "--output", page, "--size", 16, "--kinds", "center")
  assert error == (f"ctx-encoder masks: [Errno 28] No space left on device: '{page}'\n")
  assert list(tmp_path.iterdir()) == []

  def other(path):  # an error about another file keeps its name
    raise OSError(errno.EIO, "I/O error", "other")

  with pytest.raises(OSError, match="other"):
    files.write(page, other)


@pytest.mark.slow  # loads TensorFlow in a process of its own
def test_tensorflow_is_quiet():
  if not importlib.util.find_spec("tensorflow"):
    pytest.skip("TensorFlow is not installed")
  environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
  code = "from ctx_encoder.apps import console as c; c.quiet_libraries()"
  code += "; import tensorflow"
  command = [sys.executable, "-c", code]
  ended = subprocess.run(command, env=environment, capture_output=True, check=True)
  assert (ended.stdout, ended.stderr) == (b"", b"")


def test_libraries_are_quiet(capsys, monkeypatch):
  monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
  logger = logging.getLogger("jax._src.xla_bridge")
  level, filters = logger.level, logger.filters[:]
  try:
    console.quiet_libraries()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    logger.info("Unable to initialize backend 'tpu'")
    logger.warning(
      "An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not"
      " installed. Falling back to cpu."
    )
  finally:
    logger.setLevel(level)
    logger.filters = filters
  error = capsys.readouterr().err
  assert error.startswith("JAX is installed without support for this machine's NVIDIA")
  assert f"{console.install('cuda')} installs it." in error
  assert error.count("\n") == 1


def test_what_to_install(monkeypatch, tmp_path):
  monkeypatch.chdir(ROOT)
  assert console.install("train") == "pip install -e '.[train]'"
  monkeypatch.chdir(tmp_path)
  assert console.install("train", "demo") == f"pip install -e '{ROOT}[train,demo]'"
  monkeypatch.setattr(console, "_ROOT", tmp_path)  # as in site-packages
  assert console.install("train") == "pip install 'ctx-encoder[train]'"


@pytest.mark.parametrize("arguments", [["config"], ["masks", "--help"], ["--help"]])
def test_a_reader_that_ends_early_is_no_error(arguments):
  """Such as `head`."""
  reader, writer = os.pipe()
  os.close(reader)
  done = subprocess.run(
    [sys.executable, "-m", "ctx_encoder.apps.cli", *arguments],
    stdout=writer,
    stderr=subprocess.PIPE,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    check=False,
  )
  os.close(writer)
  assert done.returncode in (0, 141)
  assert done.stderr == b""


def test_a_closed_output_is_no_error(monkeypatch):
  """As after >&- in a shell."""
  monkeypatch.setattr(sys, "stdout", None)
  assert cli.main(["config", "masks"]) == 0


def test_another_pipe_that_breaks_is_an_error(monkeypatch, capfd):
  assert run(monkeypatch, BrokenPipeError("the demo's")) == 1
  assert capfd.readouterr().err == "ctx-encoder export-keras: the demo's\n"
