"""Loss terms for texture, their gradients and norms, against plain `jax.grad`."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recorders
import tiny
from recorders import BATCH, SGD, assert_close
from tiny import SIZE

from ctx_encoder.models import PatchGAN, Settings
from ctx_encoder.models.feature_nets import lpips
from ctx_encoder.training import assembly
from ctx_encoder.training.diff_augment import diff_augment
from ctx_encoder.training.gradients import show
from ctx_encoder.training.step import training_examples

KEY = jax.random.key(7)
POSITION = jnp.arange(BATCH)
WEIGHTS = {
  "reconstruction": 2.0,
  "known": 0.5,
  "content": 0.7,
  "adversarial": 0.3,
  "feature_matching": 4.0,
}
PAINT = {
  "reconstruction__norm": "l1",
  "reconstruction__pool": 4,
  "adversarial__patches": "hole",
  "adversarial__matching": "hole",
  "adversarial__r1": 5.0,
  "adversarial__r1_every": 2,
  "masks__kind": "random_block",
  "log__grad_norms": True,
} | {f"loss_weights__{name}": weight for name, weight in WEIGHTS.items()}


def ready(**changes):
  """Returns `tiny.ready` of a canvas and a discriminator that sees the mask."""
  run = assembly.run(tiny.config(**PAINT | changes))
  generator = recorders.Canvas(SIZE, remember=False)
  discriminator = PatchGAN(1, Settings(width=1 / 16), norm="none", mask_input=True)
  parts = {"generator": generator, "discriminator": discriminator}
  return tiny.ready(recorders.with_rule(run, SGD, **parts))


def pixels_and_mask(run):
  examples = training_examples(run, tiny.batch(), jax.random.fold_in(KEY, 0), POSITION)
  return examples.targets, examples.mask


class Oracle:
  """The losses of one step, written down once more."""

  def __init__(self, run):
    self.discriminator = run.discriminator
    self.targets, self.mask = pixels_and_mask(run)
    share = jax.image.resize(self.mask, (BATCH, 6, 6, 1), "linear")
    self.share = share / jnp.sum(share, (1, 2, 3), keepdims=True)

  def completed(self, canvas):
    return (1 - self.mask) * self.targets + self.mask * canvas

  def run(self, params, images):
    return self.discriminator.apply(
      {"params": params}, images, self.mask, train=True, features=True
    )

  def over_patches(self, values):
    return jnp.mean(jnp.sum(self.share * values, (1, 2, 3)))

  def discriminator_loss(self, params, canvas):
    real, fake = (
      self.run(params, images)[0] for images in (self.targets, self.completed(canvas))
    )

    def score(image, mask):
      images, masks = image[None], mask[None]
      return jnp.mean(self.discriminator.apply({"params": params}, images, masks))

    slopes = jax.vmap(jax.grad(score))(self.targets, self.mask)
    r1 = jnp.mean(jnp.sum(jnp.square(slopes), (1, 2, 3))) / 2
    game = self.over_patches(nn.softplus(-real) + nn.softplus(fake))
    return game + 5.0 * 2 * r1, (game, 2 * r1)

  def terms(self, params, canvas):
    """Returns {name: loss}, unweighted."""
    completed, mask = self.completed(canvas), self.mask

    def blocks(x):
      return nn.avg_pool(x, (4, 4), (4, 4))

    hole = jnp.sum(mask, (1, 2, 3))
    known = SIZE**2 - hole
    coarse = jnp.abs(blocks(completed) - blocks(self.targets)).sum((1, 2, 3))
    outside = jnp.sum((1 - mask) * jnp.abs(canvas - self.targets), (1, 2, 3))
    features = assembly.image_features("random", "", "", tiny.config())
    ours, theirs = (
      features((x + 1) / 2) for x in (completed.clip(-1, 1), self.targets)
    )
    content = [jnp.mean(jnp.square(ours[k] - theirs[k])) for k in ours]
    logits, fake = self.run(params, completed)
    matching = []
    for name, real in self.run(params, self.targets)[1].items():
      inside = jax.image.resize(mask, (*real.shape[:3], 1), "linear", antialias=False)
      size = jnp.maximum(jnp.mean(jnp.abs(real), (1, 2, 3)), 0.05)
      error = jnp.mean(inside * jnp.abs(fake[name] - real), (1, 2, 3))
      matching.append(jnp.mean(error / size * SIZE**2 / hole))
    return {
      "reconstruction": jnp.mean(16 * coarse / (3 * hole)),
      "known": jnp.mean(outside / (3 * known)),
      "content": jnp.mean(jnp.stack(content)),
      "adversarial": self.over_patches(nn.softplus(-logits)),
      "feature_matching": jnp.mean(jnp.stack(matching)),
    }


@pytest.mark.parametrize(
  "order", ["simultaneous", pytest.param("alternating", marks=pytest.mark.slow)]
)
def test_values_gradients_and_norms(order):
  run, _, state, step = ready(update_order=order)
  after, measured = step(state, tiny.batch(), KEY)
  oracle = Oracle(run)
  canvas, params = state.generator.params["canvas"], state.discriminator.params

  @jax.jit
  def expected(params, canvas):
    of_discriminator = jax.grad(oracle.discriminator_loss, has_aux=True)
    slopes, (game, r1) = of_discriminator(params, canvas)
    new = jax.tree.map(jnp.subtract, params, slopes)
    seen = new if order == "alternating" else params
    terms = oracle.terms(seen, canvas)
    return slopes, game, r1, terms, jax.jacrev(oracle.terms, 1)(seen, canvas)

  slopes, game, r1, terms, to_canvas = expected(params, canvas)
  change = jax.tree.map(jnp.subtract, params, after.discriminator.params)
  assert_close(change, slopes, 2e-5)
  assert_close(measured["loss/discriminator"], game, 1e-5)
  assert_close(measured["loss/r1"], r1, 1e-4)
  assert r1 > 1e-3
  total = sum(weight * to_canvas[name] for name, weight in WEIGHTS.items())
  assert_close(canvas - after.generator.params["canvas"], total, 1e-5)
  for name, weight in WEIGHTS.items():
    assert_close(measured[f"loss/{name}"], terms[name], 1e-5)
    norm = jnp.sum(jnp.linalg.norm(weight * to_canvas[name].reshape(BATCH, -1), axis=1))
    np.testing.assert_allclose(measured[f"grad_norm/output/{name}"], norm, rtol=1e-3)
    assert norm > 1e-3, name
  # R1 is left out at every second step.
  _, measured = step(after, tiny.batch(), KEY)
  assert measured["loss/r1"] == 0


def test_a_game_ignores_known_patches_far_from_the_hole():
  run = assembly.run(tiny.config(**PAINT))
  mask = np.zeros((1, SIZE, SIZE, 1), np.float32)
  mask[:, :4, :4] = 1
  logits = np.random.default_rng(0).normal(size=(2, 1, 6, 6, 1)).astype(np.float32)
  changed = logits.copy()
  changed[:, :, 3:] = 9
  for loss in (
    lambda pair: run.objective.discriminator_loss(*map(jnp.asarray, pair), mask),
    lambda pair: run.objective.generator_loss(jnp.asarray(pair[1]), mask),
  ):
    np.testing.assert_array_equal(loss(logits), loss(changed))


@pytest.mark.parametrize("matching", ["image", "known"])
def test_regions_of_feature_matching(matching):
  objective = assembly.run(tiny.config(adversarial__matching=matching)).objective
  draw = np.random.default_rng(0).normal(size=(2, 2, 8, 8, 3)).astype(np.float32)
  fake, real = ({"stage1": jnp.asarray(x)} for x in draw)
  mask = jnp.zeros((2, 16, 16, 1)).at[:, :8].set(1.0)
  found = objective.feature_matching(fake, real, mask)
  error = np.abs(draw[0] - draw[1])
  if matching == "known":
    error[:, :4] = 0
  assert_close(found, error.mean((1, 2, 3)), 1e-5)


@pytest.mark.parametrize("patches", ["all", "hole"])
def test_scales_are_summed_with_their_weights(patches):
  one = assembly.run(tiny.config(adversarial__patches=patches)).objective
  changes = {"adversarial__patches": patches, "adversarial__scale_weight": 0.5}
  both = assembly.run(tiny.config(**changes, discriminator__scales=2)).objective
  draw = np.random.default_rng(0)
  real, fake = (
    tuple(jnp.float32(draw.normal(size=(2, side, side, 1))) for side in (6, 3))
    for _ in range(2)
  )
  mask = jnp.zeros((2, 16, 16, 1)).at[:, :8].set(1.0)
  each = [one.generator_loss(logits, mask) for logits in fake]
  assert_close(both.generator_loss(fake, mask), each[0] + 0.5 * each[1], 1e-6)
  each = [
    one.discriminator_loss(*logits, mask) for logits in zip(real, fake, strict=True)
  ]
  assert_close(both.discriminator_loss(real, fake, mask), sum(each), 1e-6)
  layers = [
    {"scale1/stage1": a, "scale1/stage2": a[:, ::2, ::2], "scale2/stage1": b}
    for a, b in (real, fake)
  ]
  each = [
    one.feature_matching(
      *({k: v for k, v in x.items() if k.startswith(scale)} for x in layers), mask
    )
    for scale in ("scale1", "scale2")
  ]
  assert_close(both.feature_matching(*layers, mask), each[0] + 0.5 * each[1], 1e-6)


def test_the_content_loss_is_that_of_the_named_network(tmp_path, monkeypatch):
  draw = np.random.default_rng(0)
  trunk, heads = str(tmp_path / "trunk.npz"), str(tmp_path / "heads.npz")
  kernel = draw.normal(0, 0.1, (64, 3, 3, 3)).astype(np.float32)
  np.savez(
    trunk, **{"features.0.weight": kernel, "features.0.bias": kernel[:, 0, 0, 0]}
  )
  np.savez(heads, own=np.ones(1))
  images = jnp.asarray(draw.uniform(0, 1, (2, 1, 32, 32, 3)), jnp.float32)

  def content(**changes) -> Any:
    fields = {f"content__{name}": value for name, value in changes.items()}
    return assembly.content_distance(tiny.config(loss_weights__content=1.0, **fields))

  # "auto" is SqueezeNet where there is a path; its first layer has stride 2.
  x = np.asarray(images)[:, 0] - np.array([0.485, 0.456, 0.406], np.float32)
  x = x / np.array([0.229, 0.224, 0.225], np.float32)
  maps = jax.lax.conv_general_dilated(x.transpose(0, 3, 1, 2), kernel, (2, 2), "VALID")
  maps = np.maximum(maps + kernel[:, 0, 0, 0][None, :, None, None], 0)
  expected = np.mean((maps[0] - maps[1]) ** 2)
  assert_close(content(path=trunk, layers=" relu1")(*images), expected[None], 1e-4)
  with pytest.raises(ValueError, match="missing in the weights"):
    content(path=trunk)  # of the layers that LPIPS uses
  with pytest.raises(OSError, match=r"absent\.npz"):
    content(path=str(tmp_path / "absent.npz"))

  monkeypatch.setattr(lpips, "make_lpips", lambda *given: given)
  name, *files = content(path=trunk, heads=heads, features="alexnet")
  assert (name, *map(list, files)) == ("alex", [*np.load(trunk)], ["own"])
  assert assembly.content_distance(tiny.config()) is None


def test_networks_are_those_of_the_configuration():
  made = tiny.config(
    data__image_size=32,
    model__generator="monet",
    model__upsample="resize",
    discriminator__norm="spectral",
    discriminator__mask_input=True,
  )
  run = assembly.run(made)
  assert run.generator.decoder.upsample == "resize"
  assert (run.discriminator.norm, run.discriminator.mask_input) == ("spectral", True)
  drawn = jax.eval_shape(
    lambda: run.init(jax.random.key(0), run.optimizers(run.generator, 1))
  )
  assert drawn.generator.params["decoder"]["output"]["kernel"].shape[:2] == (3, 3)
  assert drawn.discriminator.params["stage1"]["conv"]["kernel"].shape[2] == 4
  assert "u" in drawn.discriminator.batch_stats["stage1"]["conv"]


# Differentiable augmentation


def changed(kinds, side=SIZE, count=64):
  images, masks = diff_augment(KEY, jnp.arange(count), side, kinds)
  x = jax.random.uniform(KEY, (count, side, side, 3), minval=-1)
  return x, np.asarray(images(x)), masks


@pytest.mark.slow
def test_colors_keep_the_picture():
  x, y, masks = changed(["color"], count=8)
  grey = np.asarray(x).mean(3)
  for before, after in zip(grey, y.mean(3), strict=True):
    slope, offset = np.polyfit(before.ravel(), after.ravel(), 1)
    np.testing.assert_allclose(after, slope * before + offset, atol=1e-4)
    assert 0.5 <= slope <= 1.5
    assert abs(after.mean() - before.mean()) <= 0.5
  np.testing.assert_array_equal(masks(x[..., :1]), x[..., :1])
  same, _ = diff_augment(KEY, jnp.arange(3, 5), SIZE, ["color"])
  assert_close(same(x[3:5]), y[3:5], 1e-6)  # by position in the batch


def test_translation_moves_image_and_mask_alike():
  x, y, masks = changed(["translation"])
  np.testing.assert_array_equal(masks(x), y)
  offsets = set()
  for before, after in zip(np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)]), y, strict=True):
    places = [(i, j) for i in range(5) for j in range(5)]
    found = [p for p in places if (before[p[0] :, p[1] :][:SIZE, :SIZE] == after).all()]
    assert len(found) == 1
    offsets |= set(found)
  assert {i for i, _ in offsets} == {j for _, j in offsets} == set(range(5))


def test_cutout_removes_a_square_of_half_the_side():
  x, y, _ = changed(["cutout"])
  gone = (y == 0).all(3)
  np.testing.assert_array_equal(y[~gone], np.asarray(x)[~gone])
  sizes = gone.sum((1, 2))
  assert sizes.max() == (SIZE // 2) ** 2
  assert sizes.min() >= (SIZE // 4) ** 2
  for hole in gone:
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    assert hole.sum() == len(rows) * len(columns)


@pytest.mark.slow
def test_the_discriminator_sees_both_images_changed_alike():
  run = ready(adversarial__diff_augment="translation,cutout").run
  key = jax.random.fold_in(KEY, 0)
  examples = training_examples(run, tiny.batch(), key, POSITION)
  outputs = examples.targets + examples.mask
  shown = show(run.objective, examples, outputs, key, POSITION)
  difference = np.asarray(shown.fake - shown.real)
  mask = np.asarray(shown.mask)
  assert (mask != examples.mask).any()
  assert (difference[np.broadcast_to(mask == 0, difference.shape)] == 0).all()
  kept = np.broadcast_to(mask > 0, difference.shape) & (np.asarray(shown.real) != 0)
  np.testing.assert_allclose(difference[kept], 1, atol=1e-5)
  # The gradient returns to where the pixels came from.
  pulled = shown.pull(jnp.ones_like(shown.fake))
  assert pulled.sum() == kept.sum()
  plain = dataclasses.replace(run.objective, adversarial=tiny.config().adversarial)
  unchanged = show(plain, examples, outputs, key, POSITION)
  np.testing.assert_array_equal(unchanged.real, examples.targets)
