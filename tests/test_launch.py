"""Every configuration from end to end, launch.py and the ctx-encoder command."""

import importlib
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

from ctx_encoder import config as configuration
from ctx_encoder.apps import cli, console
from ctx_encoder.evaluation import compare, figures
from ctx_encoder.training import history, loop, trainer
from ctx_encoder.training.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py"))

# The report's models: two generators, for each kind of hole and all combined.
REPORT = {
  f"{generator}_{name}": (generator, kind)
  for generator in ("photos", "monet")
  for name, kind in (
    ("center", "center"),
    ("block", "random_block"),
    ("region", "random_region"),
    ("combined", "combined"),
  )
}


def get_config(name, *variant):
  return importlib.import_module(f"configs.{name}").get_config(*variant)


def cut_down(config):
  """Makes the networks and images of a configuration as small as possible."""
  side, full = 16, config.data.image_size
  if config.data.load_size:
    config.data.load_size = side * config.data.load_size // full
  if config.reconstruction.overlap:  # one pixel around the hole
    config.reconstruction.overlap = 1
    config.masks.center_fraction = (side / 2 - 2) / side
  config.data.image_size = side
  config.data.loader = "pillow"
  config.model.width = config.discriminator.width = 0.05
  config.discriminator.depth = 1
  config.batch_size = 4
  config.num_steps = 2
  config.eval.grid_images = 2
  config.log.every_steps = 1
  return config


@pytest.mark.slow  # below, launch.py trains 'Photos'
@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_trains(name, photographs, tmp_path, monkeypatch):
  monkeypatch.setattr(figures, "curves", lambda *args, **kwargs: None)  # a second each
  config = cut_down(get_config(name))
  config.data.path = str(photographs)
  said = []
  outcome = trainer.train(config, tmp_path, say=said.append)
  assert (outcome.step, outcome.reason) == (2, "finished")
  assert loop.table_of(outcome.results) in said[-1]
  assert math.isfinite(outcome.results[compare.MODEL]["psnr_hole"])

  *training, validation = history.read(tmp_path / "metrics.jsonl")
  assert [line["step"] for line in training] == [1, 2]
  for line in (*training, validation):
    assert all(math.isfinite(value) for value in line.values())
  for term, weight in vars(config.loss_weights).items():
    assert (f"loss/{term}" in training[0]) == (weight > 0)
  assert Checkpoints(tmp_path / "checkpoints").steps() == [2]
  saved = Checkpoints(tmp_path / "checkpoints").read_config()
  assert saved == json.loads(json.dumps(configuration.to_dict(config)))
  for file in ("results.json", "images/step_0000002.png"):
    assert (tmp_path / file).stat().st_size > 0


def test_the_reports_models_have_configurations():
  for name, (generator, kind) in REPORT.items():
    config = get_config(name)
    assert config.model.generator == generator
    assert config.masks.kind == kind
    assert config.masks.fill == "black"
    assert config.data.image_size == 128
    assert config.optimizer.learning_rate == 2e-4
    assert config.optimizer.b1 == 0.5
    weights = config.loss_weights
    assert (weights.reconstruction, weights.adversarial) == (0.999, 0.001)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_configuration_is_valid_new_and_documented(name):
  module = importlib.import_module(f"configs.{name}")
  config, quick = module.get_config(), module.get_config("quick")
  for each in (config, quick):
    configuration.validate(each)
    assert isinstance(each, configuration.Config)
  assert config.name == name
  assert quick.name == f"{name}_quick"
  config.masks.kind = "changed"
  config.augment.rotation = 77.0
  assert module.get_config().masks.kind != "changed"
  assert quick.augment.rotation != 77.0
  command = rf"^\s*python launch\.py --config=configs/{name}\.py( |$)"
  assert re.search(command, module.__doc__, re.MULTILINE)


# launch.py


def launch(*arguments, cwd=ROOT, **environment):
  return subprocess.run(
    [sys.executable, str(ROOT / "launch.py"), *map(str, arguments)],
    cwd=cwd,
    env=os.environ | environment,
    capture_output=True,
    text=True,
    timeout=300,
  )


BLOCK = "--config=configs/photos_block.py"


@pytest.fixture(scope="module")
def without_jax(tmp_path_factory):
  """Returns a PYTHONPATH on which importing a slow package ends the process."""
  folder = tmp_path_factory.mktemp("without_jax")
  for package in ("jax", "flax", "orbax", "tensorflow"):
    (folder / f"{package}.py").write_text("raise SystemExit('slow')")
  return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


# Arguments and a part of the one line about each.
WRONG = (
  ([], "--config is missing, for example --config=configs/photos_block.py:quick"),
  ([BLOCK, "--config.masks.knid=brush"], "'masks.knid'; nearest: masks.kind"),
  ([BLOCK, "--config.mask=brush"], "there is no field 'mask'"),
  ([BLOCK, "--config.batch_size=many"], "--config.batch_size=many: "),
  ([BLOCK, "--config.batch_size=0"], "'batch_size' must be within [1, inf], not 0"),
  ([BLOCK, "--config.masks.kind=blok"], "not 'blok' (did you mean 'random_block'?)"),
  ([BLOCK, "--colour=red"], "Unknown command line flag 'colour'"),
  ([BLOCK, "photos/"], "'photos/' is not a flag"),
  (["--config=configs/photo_block.py:quick"], "'configs/photo_block.py'; nearest: pho"),
  ([BLOCK, "--config.num_epochs=1", "--config.num_steps=2"], "long to train: give one"),
  ([BLOCK + ":fast"], "A configuration has the variants quick and small, not 'fast'"),
)

# Parses and validates as launch.py does, every line of input in a fork of its own.
_FORKS = """
import json, os, sys
import launch
for line in sys.stdin:
  print("@", flush=True)
  print("@", file=sys.stderr, flush=True)
  child = os.fork()
  if not child:
    sys.argv = ["launch.py", *json.loads(line)]  # where config_flags finds the fields
    launch.app.run(launch.main, flags_parser=launch.parse_flags)
  print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_errors_are_one_line_before_anything_slow_is_imported(without_jax, tmp_path):
  workdir = tmp_path / "run"
  calls = [[*arguments, f"--workdir={workdir}"] for arguments, _ in WRONG]
  ended = subprocess.run(
    [sys.executable, "-c", _FORKS],
    input="\n".join(map(json.dumps, calls)),
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": without_jax},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert ended.returncode == 0, ended.stderr
  codes, errors = ended.stdout.split("@\n")[1:], ended.stderr.split("@\n")[1:]
  for (arguments, words), code, error in zip(WRONG, codes, errors, strict=True):
    assert code == "1\n", arguments
    assert error.startswith("launch.py: "), error
    assert error.count("\n") == 1, error
    assert words in error
  assert not workdir.exists()


def test_an_error_without_a_message_is_named_by_its_type():
  import launch

  for error, line in (
    (ValueError(), "launch.py: ValueError"),
    (OSError(""), "launch.py: OSError"),
    (ValueError("\n \n"), "launch.py: ValueError"),
    (ValueError("traceback\n  the reason\n"), "launch.py: the reason"),
  ):
    with pytest.raises(SystemExit) as ended:
      launch.fail(error)
    assert ended.value.code == line


def launch_here(monkeypatch, *arguments):
  """Runs launch.py in this process, without its cache of compiled functions."""
  import launch

  argv = ["launch.py", *arguments]
  monkeypatch.setattr(sys, "argv", argv)  # where config_flags finds the fields
  monkeypatch.setattr(launch.xla, "cache_in", lambda folder: None)
  try:
    launch.main(launch.parse_flags(argv))
  finally:
    launch.flags.FLAGS.unparse_flags()


def test_libraries_log_errors_only_unless_a_flag_asks_for_more(monkeypatch):
  from absl import logging

  levels = []
  monkeypatch.setattr(
    trainer, "train", lambda *_: levels.append(logging.get_verbosity())
  )
  launch_here(monkeypatch, BLOCK)
  launch_here(monkeypatch, BLOCK, "--verbosity=0")
  assert levels == [logging.ERROR, logging.INFO]


def test_the_number_of_epochs_counts_where_a_flag_names_it(monkeypatch):
  trained = []
  monkeypatch.setattr(trainer, "train", lambda config, _: trained.append(config))
  for given, expected in (
    ([], (200, 1500)),
    (["--config.num_epochs=3"], (3, 0)),
    (["--config.num_steps=7"], (200, 7)),
  ):
    launch_here(monkeypatch, f"{BLOCK}:quick", *given)
    config = trained.pop()
    assert (config.num_epochs, config.num_steps) == expected


def test_other_versions_of_python_are_refused_in_one_line():
  import launch

  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  assert project["requires-python"] == ">=3.11,<3.14"
  source = pathlib.Path(launch.__file__).read_text()
  for version, refused in (((3, 10, 9), 1), ((3, 11, 0), 0), ((3, 14, 0), 1)):
    code = f"import sys; sys.version_info = {version}; exec({source!r})"
    ended = subprocess.run(
      [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    words = "launch.py needs Python 3.11, 3.12 or 3.13; this is"
    assert ended.stderr.startswith(words) == bool(refused)
    assert not refused or ended.stderr.count("\n") == 1


def test_a_missing_package_is_one_line(tmp_path):
  (tmp_path / "absl.py").write_text("raise ModuleNotFoundError(name='absl')")
  ended = launch(BLOCK, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
  assert ended.returncode == 1
  assert ended.stderr == (
    "launch.py needs absl, which is not installed: pip install -e '.[train]'\n"
  )


def test_launch_trains_and_resumes(photographs, tmp_path):
  arguments = [
    f"--config={ROOT / 'configs' / 'photos_center.py'}",
    f"--config.data.path={photographs}",
    "--config.data.image_size=16",
    "--config.data.loader=pillow",
    "--config.model.width=0.05",
    "--config.discriminator.depth=1",
    "--config.loss_weights.adversarial=0",  # half of the time to compile
    "--config.batch_size=4",
    "--config.eval.grid_images=1",
  ]
  ended = launch(*arguments, "--config.num_steps=2", cwd=tmp_path)
  assert ended.returncode == 0, ended.stderr
  assert "Traceback" not in ended.stderr
  workdir = tmp_path / "runs" / "photos_center"
  assert "17 training and 3 validation images" in ended.stdout
  assert "PSNR hole (dB)" in ended.stdout
  assert f"are in {workdir}." in ended.stdout
  for file in ("results.json", "curves.png", "metrics.jsonl"):
    assert (workdir / file).exists()
  assert list((workdir / "cache").iterdir())

  again = launch(*arguments, "--config.num_steps=2", cwd=tmp_path)
  assert again.returncode == 0, again.stderr
  assert f"Resuming at step 2 of 2 from {workdir}." in again.stdout
  assert again.stdout.split("On 3 ")[1] == ended.stdout.split("On 3 ")[1]

  refused = launch(*arguments, "--config.num_steps=2", "--config.seed=1", cwd=tmp_path)
  assert "seed: 0 in the checkpoint, 1 now" in refused.stderr
  start = "launch.py: The checkpoint was made with another"
  assert refused.stderr.startswith(start)
  assert refused.stderr.count("\n") == 1


# ctx-encoder


def test_the_command_helps(capsys):
  for arguments in ([], ["--help"], ["-h"]):
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("usage: ctx-encoder COMMAND")
    for name, summary in cli.COMMANDS.items():
      assert f"  {name}" in out
      assert summary in out


def test_an_unknown_command_is_named(capsys):
  assert cli.main(["paint"]) == 2
  out, err = capsys.readouterr()
  assert out == ""
  assert err.startswith("ctx-encoder: there is no command 'paint'; nearest: inpaint.\n")
  assert "usage: ctx-encoder COMMAND" in err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name, capsys):
  with pytest.raises(SystemExit) as ended:
    cli.main([name, "--help"])
  assert ended.value.code == 0
  out = capsys.readouterr().out
  assert out.startswith(f"usage: ctx-encoder {name}")
  assert f"ctx-encoder {name}" in out.split("\n", 1)[1]  # an example


def test_a_missing_package_is_named(capsys, monkeypatch):
  def missing(name):
    raise ModuleNotFoundError("No module named 'dm_pix'", name="dm_pix")

  monkeypatch.setattr(importlib, "import_module", missing)
  assert cli.main(["augment"]) == 1
  assert capsys.readouterr().err == (
    "ctx-encoder augment needs dm_pix, which is not installed:"
    f" {console.install('train')}\n"
  )


def test_the_fields_of_a_configuration_are_listed(capsys):
  assert cli.main(["config", "learning_rate"]) == 0
  assert capsys.readouterr().out == (
    "optimizer.learning_rate = 0.0002\n"
    "    learning rate of the discriminator\n"
    "    float, at least 0, at most 10\n"
  )
