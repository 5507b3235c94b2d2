"""The landscape recipe with a small network: trained, resumed, fine-tuned."""

import dataclasses
import importlib

import flax.traverse_util
import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

from ctx_encoder import config, data
from ctx_encoder.evaluation import figures
from ctx_encoder.models import Landscape
from ctx_encoder.training import assembly, history, initial, trained, trainer
from ctx_encoder.training.checkpoint import Checkpoints

NETWORK = Landscape(channels=(8, 8, 8), blocks=1, attend=(1,), heads=1)
IMAGES = data.from_arrays(tiny.batch(10)["image"], tiny.batch(4, seed=1)["image"])


def recipe(**changes):
  made = importlib.import_module("configs.landscape").get_config("quick")
  fields = {
    "data.image_size": 16,
    "discriminator.depth": 1,
    "discriminator.width": 1 / 16,
    "model.width": 1.0,
    "batch_size": 4,
    "num_steps": 2,
    "log.every_steps": 1,
    "log.grad_norms": True,
    "optimizer.schedule": "constant",
  }
  made.update(fields | {k.replace("__", "."): v for k, v in changes.items()})
  return made


def fit(workdir, **changes):
  run = dataclasses.replace(assembly.run(recipe(**changes)), generator=NETWORK)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(figures, "curves", lambda *args, **kwargs: None)
    trainer.fit(run, IMAGES, workdir, say=lambda text: None)
  lines = history.read(workdir / "metrics.jsonl")
  steps = [line for line in lines if "loss/total" in line]
  return trained.load(workdir, generator=NETWORK), steps


def saved(workdir):
  """Returns all arrays of the last checkpoint."""
  run = dataclasses.replace(assembly.run(recipe()), generator=NETWORK)
  optimizers = run.optimizers(NETWORK, 1)
  abstract = jax.eval_shape(lambda: run.init(jax.random.key(0), optimizers))
  return Checkpoints(workdir / "checkpoints").restore(abstract)[0]


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
  """A run of four steps: its folder, its generator and its lines."""
  folder = tmp_path_factory.mktemp("complete")
  return folder, *fit(folder, num_steps=4)


@pytest.mark.slow
def test_every_term_is_trained_and_measured(complete):
  _, _, lines = complete
  weights = recipe().loss_weights
  terms = [name for name, weight in vars(weights).items() if weight]
  assert {"content", "known", "feature_matching", "adversarial", "grid"} <= set(terms)
  for line in lines:
    values = {name: line[f"loss/{name}"] for name in terms}
    # The game and its features start with weight 0.
    share = {"adversarial": 0, "feature_matching": 0}
    warm = (line["step"] - 1) / 400
    total = sum(
      getattr(weights, name) * (warm if name in share else 1) * value
      for name, value in values.items()
    )
    assert line["loss/total"] == pytest.approx(total, rel=1e-4)
    assert values.pop("grid") >= 0  # of 0 in small holes
    assert min(values.values()) > 0
    assert all(np.isfinite(line[f"grad_norm/output/{name}"]) for name in terms)
  assert [line["loss/r1"] > 0 for line in lines] == [True, False, False, False]


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(complete, tmp_path):
  folder, _, lines = complete
  fit(tmp_path, num_steps=2)
  _, resumed = fit(tmp_path, num_steps=4)
  jax.tree.map(np.testing.assert_array_equal, saved(tmp_path), saved(folder))
  for line in (*lines, *resumed):
    line.pop("seconds", None)
  assert resumed == lines


def flat(params):
  return flax.traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep="/")


@pytest.mark.slow
def test_initial_weights_from_a_file_and_from_a_run(complete, tmp_path):
  folder, first, _ = complete
  wanted = flat(first.variables["params"])
  save_file(wanted, tmp_path / "weights.safetensors")
  for source in (tmp_path / "weights.safetensors", folder):
    run = assembly.run(recipe(init_from=str(source)))
    found = flat(initial.params(dataclasses.replace(run, generator=NETWORK)))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


@pytest.mark.slow
def test_fine_tuning_starts_from_a_file_or_a_run(complete, tmp_path):
  folder, first, _ = complete
  wanted = flat(first.variables["params"])
  file = tmp_path / "weights.safetensors"
  save_file(wanted, file)
  still = {"num_steps": 1, "optimizer__learning_rate": 0.0}
  for source in (file, folder):
    workdir = tmp_path / f"from_{source.name}"
    model, _ = fit(workdir, init_from=str(source), **still)
    found = flat(model.variables["params"])
    for name, values in wanted.items():
      np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
  # A run that goes on does not need the file.
  file.unlink()
  fit(tmp_path / f"from_{file.name}", init_from=str(file), **still | {"num_steps": 2})


@pytest.mark.slow
def test_weights_of_another_network_are_refused(complete, tmp_path, monkeypatch):
  folder, first, _ = complete
  monkeypatch.setattr(trainer.feed, "load_images", lambda *args: pytest.fail("images"))
  wrong = flat(first.variables["params"])
  save_file(wrong, tmp_path / "wrong.safetensors")
  cases = {
    str(
      tmp_path / "wrong.safetensors"
    ): r"down1/kernel is \[4, 4, 8, 8\] there and \[4, 4, 16,",
    "landscape": r"init_from=landscape has the weights of another network: ",
    str(folder): r"is of another model",
    str(tmp_path / "none"): r"is neither 'landscape', nor a \.safetensors file, nor",
  }
  other = Landscape(channels=(16, 8, 8), blocks=1, attend=(1,), heads=1)
  monkeypatch.setattr(assembly, "generator", lambda config: other)
  for source, message in cases.items():
    with pytest.raises((ValueError, OSError), match=message) as error:
      trainer.train(recipe(init_from=source), tmp_path / "run", say=print)
    assert "\n" not in str(error.value)


def test_the_shipped_weights_fit_the_recipe():
  made = importlib.import_module("configs.landscape").get_config()
  made.init_from = "landscape"
  config.validate(made)
  params = initial.params(assembly.run(made))
  assert sum(x.size for x in jax.tree.leaves(params)) == 2_567_923
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(params))
