"""The loss terms and penalties of a configuration, and which network they train."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recorders
import tiny

from ctx_encoder import config, losses
from ctx_encoder.training import assembly, gradients, keys
from ctx_encoder.training.step import training_examples

KEY = jax.random.key(0)


def small(**changes):
  """Returns `tiny.ready` with the smallest convolutional networks."""
  run = assembly.run(tiny.config(**changes))
  parts = {"generator": tiny.generator(), "discriminator": tiny.discriminator()}
  return tiny.ready(dataclasses.replace(run, **parts))


def step_of(make=recorders.ready, **changes):
  """Returns a run's state before and after a step, and its metrics."""
  *_, state, step = make(**changes)
  after, measured = step(state, tiny.batch(4), KEY)
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
  return step_of(small, **ALL)


@pytest.fixture(scope="module")
def default():
  return step_of()


def test_the_total_is_the_weighted_sum_of_all_terms(everything):
  _, _, measured = everything
  weights = {name.removeprefix("loss_weights__"): w for name, w in ALL.items()}
  terms = {name: measured[f"loss/{name}"] for name in weights}
  assert all(value > 0 for value in terms.values()), terms
  total = sum(weights[name] * terms[name] for name in weights)
  np.testing.assert_allclose(measured["loss/total"], total, rtol=1e-5)


@pytest.mark.slow
def test_terms_without_weight_are_not_computed():
  before, after, measured = step_of(small, loss_weights__adversarial=0.0)
  assert {name for name in measured if name.startswith("loss/")} == {
    "loss/reconstruction",
    "loss/total",
  }
  assert moved(before.generator, after.generator)
  assert not moved(before.discriminator, after.discriminator)


@pytest.mark.slow
def test_a_warm_up_starts_at_zero():
  changes = ALL | {"loss_warm_up__style": 100, "loss_warm_up__adversarial": 10}
  only = {"loss_weights__style": 0.0, "loss_weights__seam": 0.0}
  *_, measured = step_of(**changes | only)
  rest = 0.9 * measured["loss/reconstruction"] + 0.1 * measured["loss/total_variation"]
  np.testing.assert_allclose(measured["loss/total"], rest, rtol=1e-5)
  assert measured["loss/adversarial"] > 0
  weights = assembly.loss_weights(tiny.config(**changes))
  np.testing.assert_allclose(weights["style"](jnp.asarray(50)), 0.25)
  np.testing.assert_allclose(weights["adversarial"](jnp.asarray(1000)), 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("features", ["random", "discriminator"])
def test_a_style_loss_trains_the_generator_and_not_the_discriminator(features):
  before, after, measured = step_of(
    small,
    loss_weights__reconstruction=0.0,
    loss_weights__adversarial=0.0,
    loss_weights__style=1.0,
    style__features=features,
  )
  assert measured["loss/style"] > 0
  assert moved(before.generator, after.generator)
  assert not moved(before.discriminator, after.discriminator)


def test_a_missing_weight_file_of_the_style_loss_is_named(tmp_path):
  changes = {"loss_weights__style": 1.0, "style__features": "vgg16"}
  with pytest.raises((ValueError, OSError), match=r"absent\.npz"):
    step_of(**changes, style__path=str(tmp_path / "absent.npz"))


@pytest.mark.slow
def test_a_style_loss_on_vgg_features(tmp_path):
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
  changes = {"adversarial__gradient_penalty": 10.0} if game == "wasserstein" else {}
  before, after, measured = step_of(adversarial__game=game, **changes)
  assert np.isfinite(list(measured.values())).all()
  assert moved(before.discriminator, after.discriminator)
  assert "logits/real" in measured
  assert "probability/real" not in measured
  if game != "least_squares":
    adversarial = measured["loss/adversarial"]
    np.testing.assert_allclose(adversarial, -measured["logits/fake"], rtol=1e-5)
  assert ("loss/gradient_penalty" in measured) == (game == "wasserstein")


def test_mask_aware_labels_follow_the_receptive_fields():
  changes = {
    "data__image_size": 64,
    "masks__center_fraction": 0.125,
    "discriminator__depth": 1,
  }
  plain = assembly.run(tiny.config(**changes))
  aware = assembly.run(tiny.config(**changes, adversarial__mask_aware=True)).objective
  mask = plain.sample_mask(KEY)[None]
  plain = plain.objective
  real, fake = jax.random.normal(KEY, (2, 1, 30, 30, 1))
  patches = losses.fake_patches(mask, aware.windows)
  assert patches.shape == fake.shape
  assert 0 < patches.mean() < 0.5
  np.testing.assert_array_equal(
    aware.discriminator_loss(real, fake, mask),
    losses.bce_discriminator_loss(real, fake, fake=patches),
  )
  np.testing.assert_array_equal(
    aware.generator_loss(fake, mask), losses.bce_generator_loss(fake, fake=patches)
  )
  np.testing.assert_array_equal(
    plain.generator_loss(fake, mask), losses.bce_generator_loss(fake)
  )


def test_label_smoothing_changes_only_the_discriminators_loss(default):
  *_, plain = default
  *_, smooth = step_of(adversarial__label_smoothing=0.2)
  assert plain["loss/adversarial"] == smooth["loss/adversarial"]
  assert plain["loss/discriminator"] != smooth["loss/discriminator"]


@pytest.fixture(scope="module")
def penalized():
  """A run with both penalties, its first step, and the networks' inputs in it."""
  ready = small(
    adversarial__r1=10.0, adversarial__gradient_penalty=2.0, masks__kind="random_block"
  )
  run, state = ready.run, trained_statistics(ready.state)
  after, measured = ready.step(state, tiny.batch(4), KEY)
  key = jax.random.fold_in(KEY, 0)
  position = jnp.arange(4)
  examples = training_examples(run, tiny.batch(4), key, position)
  dropout = keys.per_example(keys.stream(key, "dropout"), position)
  generated = gradients.generate(run.generator, state.generator, examples, dropout)
  fake = run.objective.fake_input(generated.outputs, examples)
  return run, state, after, measured, examples, fake, keys.stream(key, "penalty")


def trained_statistics(state):
  """Gives the discriminator running statistics other than the initial 0 and 1."""
  own = state.discriminator
  draw = np.random.default_rng(0)
  stats = jax.tree.map(
    lambda x: jnp.asarray(draw.uniform(0.2, 0.8, x.shape), x.dtype), own.batch_stats
  )
  return state.replace(discriminator=own.replace(batch_stats=stats))


def test_penalties_use_running_statistics(penalized):
  """R1 as in the paper is a function of one image: of no other one in its batch."""
  run, state, _, measured, examples, fake, key = penalized
  variables = state.discriminator.variables

  def discriminate(images):
    return run.discriminator.apply(variables, images, train=False)

  def in_batch(images):
    logits, _ = run.discriminator.apply(
      variables, images, train=True, mutable=["batch_stats"]
    )
    return logits

  real = examples.targets
  penalty = jax.jit(lambda x: losses.r1_penalty(discriminate, x))(real)
  np.testing.assert_allclose(measured["loss/r1"], penalty.mean(), rtol=1e-4)
  expected = losses.gradient_penalty(discriminate, real, fake, key).mean()
  np.testing.assert_allclose(measured["loss/gradient_penalty"], expected, rtol=1e-4)

  found = jax.jit(
    lambda x: run.objective.penalties(discriminate, x, fake, key, 0)["r1"][1]
  )
  np.testing.assert_allclose(found(real), penalty.mean(), rtol=1e-5)
  others = real.at[1:].set(-real[1:])
  changed = jax.jit(lambda x: losses.r1_penalty(discriminate, x))(others)
  np.testing.assert_allclose(changed[0], penalty[0], rtol=1e-5)
  # With the statistics of the batch, neither holds.
  wrong = jax.jit(lambda x: losses.r1_penalty(in_batch, x))
  assert abs(wrong(real).mean() / penalty.mean() - 1) > 1e-2
  assert abs(wrong(others)[0] / wrong(real)[0] - 1) > 1e-3


def test_penalties_train_only_the_discriminator(penalized):
  _, state, after, measured, *_ = penalized
  plain = small(masks__kind="random_block")
  without, expected = plain.step(state, tiny.batch(4), KEY)
  assert "loss/r1" not in expected
  assert "loss/gradient_penalty" not in expected
  assert moved(without.discriminator, after.discriminator)
  for name in ("loss/total", "loss/adversarial", "loss/discriminator"):
    np.testing.assert_allclose(measured[name], expected[name], rtol=1e-5)
  # Adam's updates of gradients that only rounding makes different are not compared.
  pairs = zip(
    *(jax.tree.leaves(x.generator.opt_state[0].mu) for x in (without, after)),
    strict=True,
  )
  for one, other in pairs:
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l1", "charbonnier"])
def test_discounted_weights_lower_the_reconstruction_loss(norm):
  def loss(**changes):
    run = assembly.run(tiny.config(reconstruction__norm=norm, **changes))
    images = jnp.float32(tiny.batch()["image"]) / 255
    mask = jnp.zeros((4, tiny.SIZE, tiny.SIZE, 1)).at[:, 4:12, 4:12].set(1.0)
    examples = run.view.examples(images, mask)
    return run.objective.reconstruction_loss(jnp.zeros_like(images), examples).mean()

  assert 0 < loss(reconstruction__discount=0.8) < loss()


def test_the_grid_is_that_of_the_completed_image():
  side = 32
  run = assembly.run(tiny.config(data__image_size=side, loss_weights__grid=0.1))
  images = jnp.float32(tiny.batch(side=side)["image"]) / 255
  mask = jnp.zeros((4, side, side, 1)).at[:, 4:28, 4:28].set(1.0)
  board = jnp.float32(np.indices((side, side)).sum(0) % 2)[None, :, :, None]
  outputs = jnp.broadcast_to(board - 0.5, images.shape)
  terms = run.objective.terms(outputs, run.view.examples(images, mask), {}.get)
  completed = jnp.where(mask > 0, (outputs + 1) / 2, images)
  expected = losses.grid_loss(completed, mask)
  assert (expected > 3).all()
  np.testing.assert_allclose(terms["grid"](), expected, rtol=1e-4)


def test_every_loss_term_is_tested_here():
  names = set(vars(config.default().loss_weights))
  tested = {name.removeprefix("loss_weights__") for name in ALL}
  in_test_paint = {"known", "content", "feature_matching"}
  assert names == tested | in_test_paint | {"grid"}
  assert set(vars(config.default().loss_warm_up)) <= names
