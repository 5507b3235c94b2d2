"""A run's generator, read back from its work directory."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny

from ctx_encoder.apps import runs
from ctx_encoder.training import trained

pytestmark = pytest.mark.usefixtures("mosaics")


@pytest.fixture(scope="module")
def workdir(photographs, tmp_path_factory):
  """A short run of a tiny network on small pictures."""
  return tiny.train(
    tmp_path_factory.mktemp("runs") / "one",
    data__path=str(photographs),
    data__validation_fraction=0.3,
    ema_decay=0.9,
    model__dtype="bfloat16",  # on CPUs the same as float32
    num_steps=6,
  )


def test_the_generator_is_the_one_that_was_saved(workdir, caplog):
  model = trained.load(workdir)
  if jax.default_backend() == "cpu":
    (line,) = caplog.messages
    assert "model.dtype=bfloat16 runs in float32 on CPUs" in line
  assert trained.load(workdir, step=6).step == 6
  assert model.config.ema_decay == 0.9
  leaves = jax.tree.leaves(model.variables)
  assert all(isinstance(leaf, jax.Array) for leaf in leaves)
  written = json.loads((workdir / "results.json").read_text())
  assert model.step == written["step"]
  results = written["results"]
  request = runs.Request([str(workdir)], masks=["center"], baselines=["mean"])
  found = runs.make_plan(request).compare("center").summary
  # Training has another key for its masks, but a centre hole needs none.
  expected = results["mean colour"]["psnr_hole"]
  np.testing.assert_allclose(found["mean colour"]["psnr_hole"].mean, expected, 1e-4)
  expected = results["this model"]["psnr_hole"]
  np.testing.assert_allclose(found[model.name]["psnr_hole"].mean, expected, atol=0.05)


def test_no_run_and_a_damaged_one(workdir, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no checkpoint in .* Train one"):
    trained.load(tmp_path)
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  for file in (copy / "checkpoints").rglob("*"):
    if file.is_file() and file.parent.name != "checkpoints" and file.suffix != ".json":
      file.write_bytes(b"")
  with pytest.raises(ValueError, match="damaged"):
    trained.load(copy)
