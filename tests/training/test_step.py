"""The training step with two recording networks, against NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import recorders
import scipy.ndimage
import tiny
from recorders import BATCH, WEIGHTS, assert_close, assert_same, inputs_of
from tiny import SIZE

from ctx_encoder import masks
from ctx_encoder.training.feed import make_dispatch

KEY = jax.random.key(7)
CENTER = masks.make_sampler("center", SIZE)


def contrasty_holes():
  """Returns a batch whose smallest and largest values are in the centre."""
  batch = tiny.batch(BATCH)
  inside = np.asarray(CENTER(KEY)) > 0
  batch["image"] = np.where(inside, batch["image"], batch["image"] // 2 + 60)
  return batch


def scale_by_hand(images, mask, normalization):
  """Returns offset and factor, `[B, 1, 1, 1]` each."""
  if normalization == "minmax":
    known = [image[hole[..., 0] == 0] for image, hole in zip(images, mask, strict=True)]
    low, high = (np.array([f(k) for k in known]) for f in (np.min, np.max))
    offset, factor = (low + high) / 2, (high - low) / 2
  else:
    half = 0.5 if normalization == "symmetric" else 0.0
    offset, factor = np.full(len(images), half), np.full(len(images), 1 - half)
  return offset[:, None, None, None], factor[:, None, None, None]


def smooth_by_hand(images, mask):
  return np.asarray(masks.smooth_fill(jnp.float32(images), jnp.float32(mask)))


def step_by_hand(run, batch, mask, canvas, weight):
  """Returns the networks' inputs, the metrics and the gradients, in float64."""
  view, options, sees = run.view, run.objective.reconstruction, run.objective.sees
  images, mask = batch["image"] / 255, np.asarray(mask, np.float64)
  canvas, weight = np.asarray(canvas, np.float64), np.asarray(weight, np.float64)
  offset, factor = scale_by_hand(images, mask, view.normalization)
  targets = (images - offset) / factor
  fill = smooth_by_hand(images, mask) if view.fill is None else np.array(view.fill)
  inputs = ((1 - mask) * images + mask * fill - offset) / factor
  base = inputs if view.predict == "residual" else np.zeros_like(targets)
  if view.mask_channel:
    inputs = np.concatenate([inputs, mask], axis=3)

  cut = slice(None)
  if view.predict == "patch":
    cut = slice(SIZE // 4, SIZE // 4 * 3)
  predicted = base.copy()
  predicted[:, cut, cut] += canvas
  completed = (1 - mask) * targets + mask * predicted
  fake = {"completed": completed, "output": predicted, "patch": canvas}[sees]
  real = targets[:, cut, cut] if sees == "patch" else targets

  near = np.ones((1, 2 * options.overlap + 1, 2 * options.overlap + 1, 1))
  ring = scipy.ndimage.binary_dilation(mask > 0, near) - mask
  counts = mask + options.overlap_weight * ring
  count = 3 * (SIZE**2 if options.per == "image" else (mask + ring).sum((1, 2, 3)))
  error, slope = np.abs(predicted - targets), np.sign(predicted - targets)
  if options.norm == "l2":
    error, slope = error**2, 2 * (predicted - targets)
  reconstruction = ((counts * error).sum((1, 2, 3)) / count).mean()
  pull = counts * slope / np.broadcast_to(count, BATCH)[:, None, None, None] / BATCH

  def logits_of(weight, x):
    return (x * weight).mean((1, 2, 3))

  def probability(logits):
    return 1 / (1 + np.exp(-logits))

  on_real, on_fake = logits_of(weight, real), logits_of(weight, fake)
  loss = np.log1p(np.exp(-on_real)) + np.log1p(np.exp(on_fake))
  towards = (probability(on_real) - 1)[:, None, None, None] * real
  towards = towards + probability(on_fake)[:, None, None, None] * fake
  to_weight = towards.mean(0) / weight.size
  if run.config.update_order == "alternating":
    weight = weight - to_weight
  logits = logits_of(weight, fake)
  adversarial = np.log1p(np.exp(-logits)).mean()
  push = np.zeros_like(predicted)
  where = cut if sees == "patch" else slice(None)
  push[:, where, where] = (
    (probability(logits) - 1)[:, None, None, None] * weight / weight.size / BATCH
  )
  if sees == "completed":
    push = push * mask
  total = WEIGHTS["reconstruction"] * pull + WEIGHTS["adversarial"] * push

  restored = np.clip(completed * factor + offset, 0, 1)
  squares = (mask * (restored - images) ** 2).sum((1, 2, 3)) / mask.sum((1, 2, 3)) / 3
  metrics = {
    "loss/reconstruction": reconstruction,
    "loss/adversarial": adversarial,
    "loss/total": WEIGHTS["reconstruction"] * reconstruction
    + WEIGHTS["adversarial"] * adversarial,
    "loss/discriminator": loss.mean(),
    "probability/real": probability(on_real).mean(),
    "probability/fake": probability(on_fake).mean(),
    "psnr_hole": (-10 * np.log10(squares)).mean(),
  }
  return inputs, real, fake, metrics, total[:, cut, cut], to_weight


CASES = {
  "as in the report": {},
  "output": {"discriminator__sees": "output"},
  "l1 of the image": {"reconstruction__norm": "l1", "reconstruction__per": "image"},
  "overlap": {"reconstruction__overlap": 2, "reconstruction__overlap_weight": 10.0},
  "overlap of the image, l1": {
    "reconstruction__overlap": 1,
    "reconstruction__norm": "l1",
    "reconstruction__per": "image",
  },
  "unit": {"data__normalization": "unit", "masks__fill": "#33e666"},
  "minmax": {"data__normalization": "minmax", "masks__fill": "white"},
  "mask channel": {"model__mask_channel": True, "masks__fill": "#1a80ff"},
  "patch": {"model__predict": "patch"},
  "residual": {"model__predict": "residual", "masks__fill": "smooth"},
  "residual, mask channel, minmax": {
    "model__predict": "residual",
    "masks__fill": "#1a80ff",
    "model__mask_channel": True,
    "data__normalization": "minmax",
    "discriminator__sees": "output",
  },
  "patch, output": {"model__predict": "patch", "discriminator__sees": "output"},
  "as in Pathak's code": {
    "model__predict": "patch",
    "discriminator__sees": "patch",
    "masks__center_fraction": 0.375,
    "reconstruction__overlap": 1,
    "masks__fill": "#668099",
  },
}


# What the order changes does not depend on the other options.
ALTERNATING = {"as in the report", "residual, mask channel, minmax", "patch, output"}
ORDERS = [(name, "simultaneous") for name in CASES]
ORDERS += [(name, "alternating") for name in CASES if name in ALTERNATING]


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_a_step_follows_the_formulas(name, order):
  run, _, before, step = recorders.ready(update_order=order, **CASES[name])
  batch = contrasty_holes()
  after, measured = step(before, batch, KEY)
  mask = np.stack([run.sample_mask(KEY)] * BATCH)
  canvas = before.generator.params["canvas"]
  weight = before.discriminator.params["weight"]
  inputs, real, fake, metrics, to_canvas, to_weight = step_by_hand(
    run, batch, mask, canvas, weight
  )
  assert_close(inputs_of(after), inputs, 1e-5)
  assert_close(after.discriminator.batch_stats["shown"], np.stack([real, fake]), 1e-5)
  assert measured.keys() == metrics.keys()
  assert all(m.shape == () and m.dtype == jnp.float32 for m in measured.values())
  assert_close(measured, metrics, 1e-5)
  assert_close(canvas - after.generator.params["canvas"], to_canvas, 1e-6)
  assert_close(weight - after.discriminator.params["weight"], to_weight, 1e-6)
  assert np.abs(to_canvas).max() > 1e-4
  assert np.abs(to_weight).max() > 1e-4
  assert (int(after.step), int(after.updates)) == (1, 1)


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"data__normalization": "unit", "model__predict": "patch"},
    {"data__normalization": "minmax"},
    {"data__normalization": "minmax", "masks__fill": "smooth"},
  ],
  ids=str,
)
def test_the_hole_does_not_reach_the_networks(options):
  *_, state, step = recorders.ready(**options)
  batch = contrasty_holes()
  hole = np.asarray(CENTER(KEY))[..., 0] > 0
  changed, elsewhere = batch["image"].copy(), batch["image"].copy()
  changed[:, hole] = 127  # with another range
  elsewhere[:, 0, 0] ^= 255
  one, _ = step(state, batch, KEY)
  two, _ = step(state, batch | {"image": changed}, KEY)
  three, _ = step(state, batch | {"image": elsewhere}, KEY)
  np.testing.assert_array_equal(inputs_of(one), inputs_of(two))
  assert (inputs_of(one) != inputs_of(three)).any()
  real, fake = one.discriminator.batch_stats["shown"]
  other_real, other_fake = two.discriminator.batch_stats["shown"]
  np.testing.assert_array_equal(fake, other_fake)
  assert (real != other_real).any()


# The two losses are separate


def weighted(reconstruction, adversarial, **options):
  """Returns `recorders.ready` with these loss weights, of any type."""
  run = recorders.make_run(**options)
  weights = {"reconstruction": reconstruction, "adversarial": adversarial}
  objective = dataclasses.replace(run.objective, weights=weights)
  return tiny.ready(dataclasses.replace(run, objective=objective))


def test_loss_weights_act_on_the_generator_only():
  def update(reconstruction, adversarial):
    *_, state, step = weighted(reconstruction, adversarial)
    after, _ = step(state, tiny.batch(BATCH), KEY)
    return after.generator.params["canvas"], after.discriminator

  canvas, discriminator = update(1.0, 0.001)
  for weights in ((5.0, 0.001), (1.0, 0.5)):
    changed, same = update(*weights)
    assert_same(discriminator, same)
    assert (canvas != changed).any()


@pytest.mark.parametrize("weight", [0, 0.0])
def test_without_adversarial_loss_the_discriminator_is_unchanged(weight):
  *_, before, step = weighted(1.0, weight, optimizer=optax.adam(0.1))
  after, measured = step(before, tiny.batch(BATCH), KEY)
  assert_same(before.discriminator, after.discriminator)
  assert set(measured) == {"loss/reconstruction", "loss/total", "psnr_hole"}
  assert measured["loss/total"] == measured["loss/reconstruction"]
  assert (before.generator.params["canvas"] != after.generator.params["canvas"]).any()


# Randomness

RANDOM = {
  "masks__kind": "random_region",
  "augment__flip_horizontal": 0.5,
  "augment__brightness": 0.3,
  "model__mask_channel": True,
}


@pytest.fixture(scope="module")
def random():
  return recorders.ready(**RANDOM)


def test_steps_and_examples_have_their_own_draws(random):
  *_, state, step = random
  # Equal pictures, so that only random draws can differ.
  batch = tiny.batch(BATCH)
  batch["image"][:] = batch["image"][0]
  drawn = []
  for number in range(3):
    after, _ = step(state.replace(step=jnp.int32(number)), batch, KEY)
    drawn += zip(inputs_of(after), after.generator.batch_stats["keys"], strict=True)
  hole, known = np.array([i[..., 3] for i, _ in drawn]), [i[..., :3] for i, _ in drawn]
  assert len(np.unique(hole, axis=0)) == len(drawn)
  assert len(np.unique([np.asarray(key) for _, key in drawn], axis=0)) == len(drawn)
  brightness = [pixels[h == 0].mean() for pixels, h in zip(known, hole, strict=True)]
  assert len(np.unique(np.round(brightness, 3))) == len(drawn)
  other, _ = step(state, batch, jax.random.key(8))
  assert (inputs_of(other)[..., 3] != hole[:BATCH]).any(axis=(1, 2)).all()


def test_draws_do_not_depend_on_the_batch_size(random):
  *_, state, step = random
  batch = tiny.batch(BATCH)
  complete, _ = step(state, batch, KEY)
  half, _ = step(state, jax.tree.map(lambda x: x[:2], batch), KEY)
  first = jax.tree.map(lambda x: x[:2], complete.generator.batch_stats)
  assert_same(half.generator.batch_stats, first)


def test_random_streams_are_independent(random):
  batch = tiny.batch(BATCH)
  *_, state, step = random
  augmented, _ = step(state, batch, KEY)
  unchanged = {name: 0.0 for name in RANDOM if name.startswith("augment")}
  *_, state, step = recorders.ready(**RANDOM | unchanged)
  plain, _ = step(state, batch, KEY)
  assert (inputs_of(augmented)[..., :3] != inputs_of(plain)[..., :3]).any()
  np.testing.assert_array_equal(inputs_of(augmented)[..., 3], inputs_of(plain)[..., 3])
  np.testing.assert_array_equal(
    augmented.generator.batch_stats["keys"], plain.generator.batch_stats["keys"]
  )


# Options


def test_the_average_is_exponential_with_a_faster_start():
  *_, state, step = recorders.ready(remember=False, ema_decay=0.25)
  assert_same(state.average, state.generator.params)
  average = np.asarray(state.average["canvas"], np.float64)
  for number in range(4):
    state, _ = step(state, tiny.batch(BATCH, seed=number), KEY)
    rate = min(0.25, (1 + number) / (10 + number))  # 1/10, 2/11, 3/12, then 1/4
    new = np.asarray(state.generator.params["canvas"], np.float64)
    average = rate * average + (1 - rate) * new
    assert_close(state.average["canvas"], average, 1e-6)
    assert (np.abs(average - new) > 1e-5).any()
  assert recorders.ready().state.average is None


def test_a_dispatch_of_one_step_and_gradient_norms():
  batch = tiny.batch(BATCH)
  *_, state, step = recorders.ready(log__grad_norms=True)
  state, _ = step(state, batch, KEY)  # gives the statistics their shapes
  dispatch = jax.jit(make_dispatch(step), donate_argnums=0)
  given = jax.tree.map(jnp.copy, state)
  rows = np.arange(BATCH)[None]
  after, measured = dispatch(given, batch["image"], batch["index"], rows, KEY)
  expected, metrics = step(state, batch, KEY)
  assert_close(after, expected, 1e-6)
  assert_close(measured, jax.tree.map(lambda x: x[None], metrics), 1e-6)
  for name in ("generator", "discriminator"):
    pair = getattr(state, name).params, getattr(expected, name).params
    norm = optax.tree.norm(jax.tree.map(jnp.subtract, *pair))
    np.testing.assert_allclose(metrics[f"grad_norm/{name}"], norm, rtol=1e-4)
