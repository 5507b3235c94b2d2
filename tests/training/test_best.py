"""Which checkpoint is the best: by PSNR, or by the features of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ctx_encoder import data
from ctx_encoder.evaluation import figures, perceptual
from ctx_encoder.training import assembly, history, trained, trainer
from ctx_encoder.training.checkpoint import Checkpoints

IMAGES = data.from_arrays(tiny.batch(8)["image"], tiny.batch(8, seed=1)["image"])
STEPS = [2, 4, 6]  # two an epoch


@pytest.fixture(autouse=True, scope="module")
def tiny_networks():
  with pytest.MonkeyPatch.context() as patch:
    tiny.use_mosaics(patch)
    patch.setattr(figures, "curves", lambda *args, **kwargs: None)
    patch.setattr(perceptual.weights, "load", lambda path: {})
    identity = jax.tree_util.Partial(lambda images: {"relu5": images})
    patch.setattr(perceptual.models, "feature_function", lambda *args: identity)
    # The distance falls where the error grows: it never agrees with PSNR.
    closeness = jax.tree_util.Partial(
      lambda x, y: 1 - jnp.mean(jnp.abs(x - y), (1, 2, 3))
    )
    patch.setattr(perceptual.models, "make_lpips", lambda *args: closeness)
    yield


def config(**changes):
  files = {"eval__path": "alexnet.npz", "eval__heads": "heads.npz"}
  return tiny.config(num_steps=6, optimizer__learning_rate=0.02, **files | changes)


def fit(workdir, **changes):
  run = assembly.run(config(**changes))
  said = []
  outcome = trainer.fit(run, IMAGES, workdir, say=said.append)
  lines = history.read(workdir / "metrics.jsonl")
  return outcome, [line for line in lines if "eval/psnr_hole" in line], said[-1]


@pytest.mark.parametrize(
  ("best_by", "metric"),
  [
    ("auto", "lpips"),
    pytest.param("psnr", "psnr_hole", marks=pytest.mark.slow),
    pytest.param("kid", "kid", marks=pytest.mark.slow),
  ],
)
def test_the_best_checkpoint_is_that_of_the_metric(best_by, metric, tmp_path):
  outcome, lines, said = fit(tmp_path, eval__best_by=best_by)
  assert [line["step"] for line in lines] == STEPS
  scores = [line[f"eval/{metric}"] for line in lines]
  best = STEPS[int((np.argmax if metric == "psnr_hole" else np.argmin)(scores))]
  assert f"the best step being {best}" in said
  assert trained.load(tmp_path).step == best
  assert best in Checkpoints(tmp_path / "checkpoints").steps()
  psnr = [line["eval/psnr_hole"] for line in lines]
  assert psnr[0] < psnr[-1]  # the network learns
  if metric == "lpips":
    assert best == STEPS[0]
    assert "LPIPS" in said
  for means in outcome.results.values():
    assert {"lpips", "kid", "psnr_hole"} <= means.keys()


def test_a_run_stops_early_by_the_metric(tmp_path):
  changes = {"early_stopping__patience": 1}
  outcome, lines, _ = fit(tmp_path, **changes)
  assert outcome.reason == "stopped early"
  assert [line["step"] for line in lines] == STEPS[:2]


def test_what_does_not_fit_is_refused_before_images_are_read(tmp_path, monkeypatch):
  monkeypatch.setattr(trainer.feed, "load_images", lambda *args: pytest.fail("images"))
  plain = tiny.config()
  assert assembly.validation(plain) is trainer.compare.validate

  def too_small(*args):
    return jax.tree_util.Partial(lambda images: {}["relu5"])

  monkeypatch.setattr(perceptual.models, "feature_function", too_small)
  with pytest.raises(KeyError):
    trainer.train(config(), tmp_path)
