"""Which loss terms a configuration puts into a step, and whom they move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ctx_encoder import losses
from ctx_encoder.config import schema as config
from ctx_encoder.training import assembly as build

KEY = jax.random.key(0)


def step_of(**changes):
  """Returns a tiny run's state before and after a step, and what was measured."""
  run = build.run(tiny.config(**changes), total_steps=10)
  state = jax.jit(lambda: run.init(0, average=False))()
  after, measured = jax.jit(run.train_step)(state, tiny.batch(4), KEY)
  return state, after, {name: float(value) for name, value in measured.items()}


def moved(before, after):
  """Returns whether a network's parameters differ."""
  pairs = zip(*map(jax.tree.leaves, (before.params, after.params)), strict=True)
  return any(bool(jnp.any(a != b)) for a, b in pairs)


ALL = {
  "loss_weights__reconstruction": 0.9,
  "loss_weights__adversarial": 0.05,
  "loss_weights__style": 0.5,
  "loss_weights__total_variation": 0.1,
  "loss_weights__seam": 0.2,
}


@pytest.fixture(scope="module")
def everything():
  return step_of(**ALL)


def test_the_total_is_the_weighted_sum_of_all_terms(everything):
  _, _, measured = everything
  weights = {name.removeprefix("loss_weights__"): w for name, w in ALL.items()}
  terms = {name: measured[f"loss/{name}"] for name in weights}
  assert all(value > 0 for value in terms.values()), terms
  total = sum(weights[name] * terms[name] for name in weights)
  np.testing.assert_allclose(measured["loss/total"], total, rtol=1e-5)


def test_terms_without_weight_are_not_there():
  before, after, measured = step_of(loss_weights__adversarial=0.0)
  assert {name for name in measured if name.startswith("loss/")} == {
    "loss/reconstruction",
    "loss/total",
  }
  assert moved(before.generator, after.generator)
  assert not moved(before.discriminator, after.discriminator)


def test_a_warm_up_starts_at_zero():
  changes = ALL | {"loss_warm_up__style": 100, "loss_warm_up__adversarial": 10}
  *_, measured = step_of(**changes)
  rest = sum(
    weight * measured[f"loss/{name.removeprefix('loss_weights__')}"]
    for name, weight in ALL.items()
    if "style" not in name and "adversarial" not in name
  )
  np.testing.assert_allclose(measured["loss/total"], rest, rtol=1e-5)
  weights = build.loss_weights(tiny.config(**changes))
  np.testing.assert_allclose(weights["style"](jnp.asarray(50)), 0.25)
  np.testing.assert_allclose(weights["adversarial"](jnp.asarray(1000)), 0.05)


@pytest.mark.parametrize("features", ["random", "discriminator"])
def test_style_alone_moves_the_generator_and_not_the_discriminator(features):
  before, after, measured = step_of(
    loss_weights__reconstruction=0.0,
    loss_weights__adversarial=0.0,
    loss_weights__style=1.0,
    style__features=features,
  )
  assert measured["loss/style"] > 0
  assert moved(before.generator, after.generator)
  assert not moved(before.discriminator, after.discriminator)


def test_a_style_of_vgg_needs_its_weights_and_names_the_file(tmp_path):
  changes = {"loss_weights__style": 1.0, "style__features": "vgg16"}
  with pytest.raises(ValueError, match=r"needs 'style\.path'"):
    config.validate(tiny.config(**changes))
  with pytest.raises((ValueError, OSError), match=r"absent\.npz"):
    step_of(**changes, style__path=str(tmp_path / "absent.npz"))


def test_a_style_of_vgg(tmp_path):
  draw = np.random.default_rng(0)
  path = tmp_path / "early.npz"
  weights = {"features.0.weight": (64, 3, 3, 3), "features.0.bias": (64,)}
  np.savez(path, **{k: draw.normal(0, 0.1, s) for k, s in weights.items()})
  before, after, measured = step_of(
    loss_weights__style=1.0,
    style__features="vgg16",
    style__path=str(path),
    style__layers="relu1_1",
  )
  assert measured["loss/style"] > 0
  assert moved(before.generator, after.generator)


@pytest.mark.parametrize("game", ["least_squares", "hinge", "wasserstein"])
def test_other_games(game):
  before, after, measured = step_of(adversarial__game=game)
  assert np.isfinite(list(measured.values())).all()
  assert moved(before.discriminator, after.discriminator)
  assert "logits/real" in measured
  assert "probability/real" not in measured
  if game != "least_squares":
    adversarial = measured["loss/adversarial"]
    np.testing.assert_allclose(adversarial, -measured["logits/fake"], rtol=1e-5)


def test_mask_aware_labels_are_of_the_patches_that_see_the_hole():
  changes = {
    "data__image_size": 64,
    "masks__center_fraction": 0.125,
    "discriminator__depth": 1,
  }
  plain = build.task(tiny.config(**changes))
  aware = build.task(tiny.config(**changes, adversarial__mask_aware=True))
  mask = plain.sample_mask(KEY)[None]
  examples = plain.see(jnp.zeros((1, 64, 64, 3)), mask)
  real, fake = jax.random.normal(KEY, (2, 1, 30, 30, 1))
  seen = losses.fake_patches(mask, aware.discriminator_windows)
  assert seen.shape == fake.shape
  assert 0 < seen.mean() < 0.5
  np.testing.assert_array_equal(
    aware.discriminator_loss(real, fake, examples),
    losses.bce_discriminator_loss(real, fake, fake=seen),
  )
  np.testing.assert_array_equal(
    aware.generator_loss(fake, examples), losses.bce_generator_loss(fake, fake=seen)
  )
  np.testing.assert_array_equal(
    plain.generator_loss(fake, examples), losses.bce_generator_loss(fake)
  )


def test_smoothing_raises_the_discriminators_loss_by_what_it_says():
  *_, plain = step_of()
  *_, smooth = step_of(adversarial__label_smoothing=0.2)
  assert plain["loss/adversarial"] == smooth["loss/adversarial"]
  assert plain["loss/discriminator"] != smooth["loss/discriminator"]
  with pytest.raises(ValueError, match=r"needs 'adversarial\.game' bce"):
    config.validate(
      tiny.config(adversarial__label_smoothing=0.2, adversarial__game="hinge")
    )


def test_r1_is_the_penalty_at_real_images_and_moves_the_discriminator_alone():
  _, after, measured = step_of(adversarial__r1=10.0)
  _, without, plain = step_of()
  assert measured["loss/r1"] > 0
  assert "loss/r1" not in plain
  differ = zip(
    *(jax.tree.leaves(x.discriminator.params) for x in (after, without)), strict=True
  )
  assert any(bool(jnp.any(a != b)) for a, b in differ)


@pytest.mark.parametrize("norm", ["l1", "charbonnier"])
def test_reconstruction_with_discounted_weights(norm):
  *_, plain = step_of(reconstruction__norm=norm)
  *_, discounted = step_of(reconstruction__norm=norm, reconstruction__discount=0.8)
  assert 0 < discounted["loss/reconstruction"] < plain["loss/reconstruction"]


def test_every_term_of_the_configuration_is_one_that_a_step_knows():
  names = set(config.default().loss_weights)
  assert names == {name.removeprefix("loss_weights__") for name in ALL}
  assert set(config.default().loss_warm_up) <= names
