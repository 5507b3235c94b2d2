"""Sweeps: their cells, failed and finished runs, and the table."""

import json
from pathlib import Path

import pytest
import tiny
from command import call, parse, refusal

from ctx_encoder import xla
from ctx_encoder.apps.commands import sweep
from ctx_encoder.evaluation.compare import MODEL

CONFIG = """
from ctx_encoder import config as base


def get_config(variant=""):
  config = base.default()
  config.data.image_size = 16
  config.data.max_images = 40
  config.model.width = 0.03
  config.model.generator = "photos"
  config.discriminator.width = 0.03
  config.discriminator.depth = 1
  config.batch_size = 4
  config.num_steps = 2
  return base.variant(config, variant)
"""


@pytest.fixture
def config(tmp_path):
  path = tmp_path / "tiny_config.py"
  path.write_text(CONFIG)
  return path


def arguments(config, *rest):
  return parse(sweep, "--config", config, "--output", "unused", *rest)


def test_cells_are_all_combinations(config):
  grid = ["--grid", "optimizer.learning_rate=1e-4,1e-3", "model.init=keras,dcgan"]
  cells = sweep.make_cells(arguments(config, *grid, "--set", "model.dropout=0.1"))
  assert list(cells) == [
    "learning_rate=0.0001_init=keras",
    "learning_rate=0.0001_init=dcgan",
    "learning_rate=0.001_init=keras",
    "learning_rate=0.001_init=dcgan",
  ]
  last = cells["learning_rate=0.001_init=dcgan"]
  assert last["optimizer"]["learning_rate"] == 1e-3
  assert last["model"]["init"] == "dcgan"
  assert {cell["model"]["dropout"] for cell in cells.values()} == {0.1}


def test_the_number_of_epochs_counts_where_it_is_named(config):
  (cell,) = sweep.make_cells(arguments(config, "--set", "num_epochs=3")).values()
  assert (cell["num_epochs"], cell["num_steps"]) == (3, 0)


def test_a_wrong_grid_is_an_error_before_anything_starts(config, tmp_path, capsys):
  output = tmp_path / "sweep"
  for rest, message in [
    (["--grid", "model.widht=1,2"], "no field 'model.widht'; nearest: model.width"),
    (["--grid", "model.width"], "is not FIELD=VALUE"),
    (["--grid", "model.width=wide"], "'model.width' must be float, not 'wide'"),
    (["--grid", "model.width=0.5,100"], "must be within"),
    (["--grid", "model.width=1", "--set", "model.width=2"], "a field twice"),
    (["--seeds", "1", "1"], "one twice"),
    (
      ["--grid", "num_epochs=1,2", "--set", "num_steps=9"],
      "num_epochs and num_steps both say how long to train",
    ),
  ]:
    arguments = ["--config", config, "--output", output, *rest]
    assert message in refusal(capsys, sweep, *arguments)
    assert not output.exists()


def test_a_missing_configuration(tmp_path, capsys):
  arguments = ["--config", "nowhere.py", "--output", tmp_path / "sweep"]
  error = refusal(capsys, sweep, *arguments)
  assert "no configuration file 'nowhere.py'" in error


def process(trained, fails=lambda config: False):
  """Returns a stand-in for `start_process` that lists what it "trained"."""

  def start(cell, log):
    described = json.loads(cell.read_text())
    config, folder = described["config"], Path(described["workdir"])
    trained.append(folder.name)
    if fails(config):
      log.write_text("step 3\nloss is nan\n")
      return 1
    folder.mkdir(exist_ok=True)
    psnr = 10 + config["optimizer"]["learning_rate"] + config["seed"]
    systems = {
      MODEL: {"psnr_hole": psnr, "l1_hole": 0.1},
      "Telea": {"psnr_hole": 12.0, "l1_hole": 0.2},
    }
    (folder / "results.json").write_text(json.dumps({"results": systems}))
    return 0

  return start


def test_results_of_another_configuration_are_not_reused(
  config, tmp_path, capsys, monkeypatch
):
  output, trained = tmp_path / "sweep", []
  monkeypatch.setattr(sweep, "start_process", process(trained))
  command = [sweep, "--config", config, "--output", output]
  assert call(*command) == 0
  assert call(*command) == 0
  assert trained == ["run_seed0"]
  capsys.readouterr()
  before = (output / "results.json").read_bytes()
  changed = [*command, "--set", "model.dropout=0.1", "--seeds", "0", "1"]
  error = refusal(capsys, *changed)
  assert "holds a result of another configuration" in error
  assert "model.dropout was None, is 0.1 now" in error
  assert error.count(" was ") == 1
  assert trained == ["run_seed0"]
  assert (output / "results.json").read_bytes() == before
  (output / "run_seed0.json").unlink()
  assert "its configuration is not recorded" in refusal(capsys, *command)


def test_a_sweep_survives_a_failed_cell_and_goes_on(
  config, tmp_path, capsys, monkeypatch
):
  output = tmp_path / "sweep"
  trained = []

  def fails(config):
    return config["optimizer"]["learning_rate"] == 1.0 and len(trained) < 4

  monkeypatch.setattr(sweep, "start_process", process(trained, fails))
  command = [sweep, "--config", config, "--output", output, "--seeds"]
  command += ["0", "2", "--grid", "optimizer.learning_rate=1.0,2.0"]
  assert call(*command) == 1
  assert len(trained) == 4
  out, err = capsys.readouterr()
  assert "loss is nan" in err
  assert "| learning_rate=2.0 | 13.00 [12.00, 14.00]" in out
  assert call(*command) == 0  # the failed ones again, and those alone
  assert trained[4:] == ["learning_rate=1.0_seed0", "learning_rate=1.0_seed2"]
  table = (output / "table.md").read_text()
  assert "| learning_rate=1.0 | 12.00 [11.00, 13.00]" in table
  assert "| Telea " in table
  figures = json.loads((output / "results.json").read_text())
  assert figures["failed"] == {}
  assert figures["cells"]["learning_rate=2.0"]["2"]["psnr_hole"] == 14


def train_here(cell, log):
  sweep._train_cell(cell)
  return 0


@pytest.mark.slow
@pytest.mark.parametrize(
  "own", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "process"]
)
def test_a_run_is_trained(own, config, photographs, tmp_path, capsys, monkeypatch):
  if not own:
    monkeypatch.setattr(sweep, "start_process", train_here)
    monkeypatch.setattr(xla, "cache_in", lambda folder: None)
    tiny.use_mosaics(monkeypatch)
  output = tmp_path / "sweep"
  command = [sweep, "--config", config, "--output", output]
  command += ["--set", f"data.path={photographs}", "data.loader=pillow"]
  assert call(*command) == 0
  assert sweep.results(output / "run_seed0") is not None
  assert "mean colour" in (output / "table.md").read_text()
  assert call(*command) == 0
  assert "1 of 1" in capsys.readouterr().out  # only of the first time
