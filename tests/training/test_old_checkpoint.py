"""A checkpoint written before the state had `updates` is loaded, and resumed.

`old_checkpoint.zip` holds the run, three steps of two parts each, and images that its
generator completed then, with running statistics corrected for six updates.
"""

import io
import pathlib
import zipfile

import jax
import numpy as np
import pytest
import tiny

from ctx_encoder import config as configuration
from ctx_encoder.evaluation import figures
from ctx_encoder.training import trained, trainer
from ctx_encoder.training.checkpoint import Checkpoints
from ctx_encoder.training.inference import make_complete

ARCHIVE = pathlib.Path(__file__).with_name("old_checkpoint.zip")


@pytest.fixture
def run(tmp_path):
  with zipfile.ZipFile(ARCHIVE) as archive:
    archive.extractall(tmp_path)
  return tmp_path / "run"


def recorded(name):
  with zipfile.ZipFile(ARCHIVE) as archive:
    return np.load(io.BytesIO(archive.read(f"{name}.npy")))


def test_inference_gives_the_recorded_images(run):
  model = trained.load(run)
  assert (model.step, model.config.accumulate, model.name) == (3, 2, "old")
  complete = make_complete(model.generator, model.variables, model.view)
  completed = np.asarray(complete(recorded("images"), recorded("masks")))
  difference = np.abs(completed.astype(int) - recorded("completed"))
  assert difference.max() <= 1  # rounding of another compiler
  assert (difference > 0).mean() < 0.01
  assert (completed != recorded("images")).any()


@pytest.mark.slow
def test_training_resumes(run, photographs, monkeypatch):
  monkeypatch.setattr(figures, "curves", lambda *args, **kwargs: None)
  checkpoints = Checkpoints(run / "checkpoints")
  config = configuration.from_saved(checkpoints.read_config())
  config.update({"data.path": str(photographs), "num_steps": 4})
  abstract = tiny.abstract_state(config)
  state, _ = checkpoints.restore(abstract)
  assert (int(state.step), int(state.updates)) == (3, 6)
  assert jax.tree.structure(state) == jax.tree.structure(abstract)

  said = []
  outcome = trainer.train(config, run, say=said.append)
  assert (outcome.step, outcome.reason) == (4, "finished")
  assert any("Resuming at step 3 of 4" in line for line in said)
  state, _ = checkpoints.restore(abstract, 4)
  assert (int(state.step), int(state.updates)) == (4, 8)
