"""The training and the evaluation step, against NumPy and plain automatic gradients.

Two recording networks make every part of a step visible: the generator's answer is a
parameter, and both keep what they were shown among their batch statistics.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.ndimage
import tiny
from tiny import SIZE

from ctx_encoder import losses, masks
from ctx_encoder.augment import make_augment
from ctx_encoder.pixels import to_uint8
from ctx_encoder.training import assembly as build
from ctx_encoder.training.state import (
  NetworkState,
  TrainState,
  inference_variables,
  init_state,
)
from ctx_encoder.training.step import make_dispatch, make_eval_step, make_train_step
from ctx_encoder.training.task import Task

BATCH = 4
KEY = jax.random.key(7)
WEIGHTS = {"reconstruction": 0.9, "adversarial": 0.3}
CENTER = masks.make_sampler("center", SIZE)
BLOCKS = masks.make_sampler("random_block", SIZE)
UNCHANGED = make_augment(image_size=SIZE)
SGD = optax.sgd(1.0)  # an update is the gradient itself


class Canvas(nn.Module):
  """A generator whose answer is its parameter, whatever it is shown."""

  side: int = SIZE
  remember: bool = True

  @nn.compact
  def __call__(self, x, *, train=False, keys=None):
    shape = (BATCH, self.side, self.side, 3)
    canvas = self.param("canvas", nn.initializers.normal(0.5), shape)
    if self.remember:
      inputs = self.variable("batch_stats", "inputs", jnp.zeros_like, x)
      drawn = self.variable("batch_stats", "keys", jax.random.key_data, keys)
      if train:
        inputs.value, drawn.value = x, jax.random.key_data(keys)
    return canvas[: len(x)]

  def reached(self):
    return {}


class Judge(nn.Module):
  """A discriminator whose logit is a weighted mean of the pixels."""

  @nn.compact
  def __call__(self, x, *, train=False):
    weight = self.param("weight", nn.initializers.normal(3.0), x.shape[1:])
    shown = self.variable("batch_stats", "shown", lambda: jnp.zeros((2, *x.shape)))
    if train:
      shown.value = jnp.stack([shown.value[1], x])
    return jnp.mean(x * weight[None], axis=(1, 2, 3))


def make_task(**changes):
  options = {"sample_mask": CENTER, "augment": UNCHANGED, "loss_weights": WEIGHTS}
  return Task(image_size=SIZE, **(options | changes))


def recorders(task, *, size=BATCH, optimizer=SGD, remember=True, **options):
  """Returns a step of the two recorders, jitted, and the state before it."""
  generator, discriminator = Canvas(task.output_size, remember), Judge()
  step = make_train_step(
    generator, discriminator, optimizer, optimizer, task, **options
  )
  inputs = jnp.zeros((size, SIZE, SIZE, task.channels))
  judged = jnp.zeros((size, task.judged_size, task.judged_size, 3))
  keys = jax.random.split(KEY, size)
  drawn = generator.init(jax.random.key(1), inputs, keys=keys)
  judging = discriminator.init(jax.random.key(2), judged)

  def network(variables):
    params = variables["params"]
    stats = variables.get("batch_stats", {})
    return NetworkState(params, stats, optimizer.init(params))

  drawn, judging = network(drawn), network(judging)
  average = drawn.params if options.get("ema_decay") else None
  state = TrainState(jnp.zeros((), jnp.int32), drawn, judging, average)
  return jax.jit(step), state


def contrasty_holes():
  """Returns a batch whose smallest and largest values are in the centre."""
  batch = tiny.batch(BATCH)
  inside = np.asarray(CENTER(KEY)) > 0
  batch["image"] = np.where(inside, batch["image"], batch["image"] // 2 + 60)
  return batch


def seen(state):
  """Returns what the generator was shown in the last step."""
  return np.asarray(state.generator.batch_stats["inputs"])


def assert_same(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def assert_close(tree, other, tolerance):
  check = functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
  jax.tree.map(check, tree, other)


# What a step does, in NumPy


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


def step_by_hand(task, batch, mask, canvas, weight, order):
  """Returns what both networks see, the metrics, and the gradients, in float64."""
  images, mask = batch["image"] / 255, np.asarray(mask, np.float64)
  canvas, weight = np.asarray(canvas, np.float64), np.asarray(weight, np.float64)
  offset, factor = scale_by_hand(images, mask, task.normalization)
  targets = (images - offset) / factor
  fill = smooth_by_hand(images, mask) if task.fill is None else np.array(task.fill)
  inputs = ((1 - mask) * images + mask * fill - offset) / factor
  base = inputs if task.predict == "residual" else np.zeros_like(targets)
  if task.mask_channel:
    inputs = np.concatenate([inputs, mask], axis=3)

  cut = slice(None)
  if task.predict == "patch":
    cut = slice(SIZE // 4, SIZE // 4 * 3)
  whole = base.copy()
  whole[:, cut, cut] += canvas
  completed = (1 - mask) * targets + mask * whole
  fake = {"completed": completed, "output": whole, "patch": canvas}[task.sees]
  real = targets[:, cut, cut] if task.sees == "patch" else targets

  near = np.ones((1, 2 * task.overlap + 1, 2 * task.overlap + 1, 1))
  ring = scipy.ndimage.binary_dilation(mask > 0, near) - mask
  counts = mask + task.overlap_weight * ring
  count = 3 * (SIZE**2 if task.per == "image" else (mask + ring).sum((1, 2, 3)))
  error, slope = np.abs(whole - targets), np.sign(whole - targets)
  if task.norm == "l2":
    error, slope = error**2, 2 * (whole - targets)
  reconstruction = ((counts * error).sum((1, 2, 3)) / count).mean()
  pull = counts * slope / np.broadcast_to(count, BATCH)[:, None, None, None] / BATCH

  def judge(weight, x):
    return (x * weight).mean((1, 2, 3))

  def probability(logits):
    return 1 / (1 + np.exp(-logits))

  on_real, on_fake = judge(weight, real), judge(weight, fake)
  loss = np.log1p(np.exp(-on_real)) + np.log1p(np.exp(on_fake))
  towards = (probability(on_real) - 1)[:, None, None, None] * real
  towards = towards + probability(on_fake)[:, None, None, None] * fake
  to_weight = towards.mean(0) / weight.size
  if order == "alternating":
    weight = weight - to_weight
  logits = judge(weight, fake)
  adversarial = np.log1p(np.exp(-logits)).mean()
  push = np.zeros_like(whole)
  where = cut if task.sees == "patch" else slice(None)
  push[:, where, where] = (
    (probability(logits) - 1)[:, None, None, None] * weight / weight.size / BATCH
  )
  if task.sees == "completed":
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


SMALL_CENTER = masks.make_sampler("center", SIZE, center_fraction=0.375)
TASKS = {
  "as the report": {},
  "output": {"sees": "output"},
  "l1 of the image": {"norm": "l1", "per": "image"},
  "overlap": {"overlap": 2, "overlap_weight": 10.0},
  "overlap of the image, l1": {"overlap": 1, "norm": "l1", "per": "image"},
  "unit": {"normalization": "unit", "fill": (0.2, 0.9, 0.4)},
  "minmax": {"normalization": "minmax", "fill": (1.0, 1.0, 1.0)},
  "mask channel": {"mask_channel": True, "fill": (0.1, 0.5, 1.0)},
  "patch": {"predict": "patch"},
  "residual": {"predict": "residual", "fill": None},
  "residual, mask channel, minmax": {
    "predict": "residual",
    "fill": (0.1, 0.5, 1.0),
    "mask_channel": True,
    "normalization": "minmax",
    "sees": "output",
  },
  "patch, raw": {"predict": "patch", "sees": "output"},
  "as Pathak's code": {
    "predict": "patch",
    "sees": "patch",
    "sample_mask": SMALL_CENTER,
    "overlap": 1,
    "fill": (0.4, 0.5, 0.6),
  },
}


@pytest.mark.parametrize("order", ["simultaneous", "alternating"])
@pytest.mark.parametrize("name", TASKS)
def test_a_step_is_what_the_formulas_say(name, order):
  task, batch = make_task(**TASKS[name]), contrasty_holes()
  step, before = recorders(task, update_order=order)
  after, measured = step(before, batch, KEY)
  mask = np.stack([task.sample_mask(KEY)] * BATCH)
  canvas = before.generator.params["canvas"]
  weight = before.discriminator.params["weight"]
  inputs, real, fake, metrics, to_canvas, to_weight = step_by_hand(
    task, batch, mask, canvas, weight, order
  )
  assert_close(seen(after), inputs, 1e-5)
  assert_close(after.discriminator.batch_stats["shown"], np.stack([real, fake]), 1e-5)
  assert measured.keys() == metrics.keys()
  assert all(m.shape == () and m.dtype == jnp.float32 for m in measured.values())
  assert_close(measured, metrics, 1e-5)
  assert_close(canvas - after.generator.params["canvas"], to_canvas, 1e-6)
  assert_close(weight - after.discriminator.params["weight"], to_weight, 1e-6)
  assert np.abs(to_canvas).max() > 1e-4
  assert np.abs(to_weight).max() > 1e-4
  assert int(after.step) == 1


@pytest.mark.parametrize("normalization", ["symmetric", "unit", "minmax"])
@pytest.mark.parametrize("options", [{}, {"predict": "patch"}, {"fill": None}], ids=str)
def test_nothing_of_the_hole_reaches_the_networks(normalization, options):
  task = make_task(normalization=normalization, **options)
  step, state = recorders(task)
  batch = contrasty_holes()
  hole = np.asarray(CENTER(KEY))[..., 0] > 0
  changed, elsewhere = batch["image"].copy(), batch["image"].copy()
  changed[:, hole] = 127  # with a range of its own
  elsewhere[:, 0, 0] ^= 255
  one, _ = step(state, batch, KEY)
  two, _ = step(state, batch | {"image": changed}, KEY)
  three, _ = step(state, batch | {"image": elsewhere}, KEY)
  np.testing.assert_array_equal(seen(one), seen(two))
  assert (seen(one) != seen(three)).any()
  real, fake = one.discriminator.batch_stats["shown"]
  other_real, other_fake = two.discriminator.batch_stats["shown"]
  np.testing.assert_array_equal(fake, other_fake)
  assert (real != other_real).any()


# The two losses do not leak into each other


def test_each_weight_reaches_the_generator_alone():
  def update(reconstruction, adversarial):
    weights = {"reconstruction": reconstruction, "adversarial": adversarial}
    step, state = recorders(make_task(loss_weights=weights))
    after, _ = step(state, tiny.batch(BATCH), KEY)
    return after.generator.params["canvas"], after.discriminator

  canvas, discriminator = update(1.0, 0.001)
  for weights in ((5.0, 0.001), (1.0, 0.5)):
    changed, same = update(*weights)
    assert_same(discriminator, same)
    assert (canvas != changed).any()


@pytest.mark.parametrize("weight", [0, 0.0])
def test_without_adversarial_loss_the_discriminator_is_left_alone(weight):
  weights = {"reconstruction": 1.0, "adversarial": weight}
  step, before = recorders(make_task(loss_weights=weights), optimizer=optax.adam(0.1))
  after, measured = step(before, tiny.batch(BATCH), KEY)
  assert_same(before.discriminator, after.discriminator)
  assert set(measured) == {"loss/reconstruction", "loss/total", "psnr_hole"}
  assert measured["loss/total"] == measured["loss/reconstruction"]
  assert (before.generator.params["canvas"] != after.generator.params["canvas"]).any()


@pytest.fixture(scope="module")
def networks():
  """A generator with dropout and noise and a discriminator, both with BatchNorm."""
  return tiny.generator(noise_dim=2), tiny.discriminator()


@pytest.fixture(scope="module")
def task():
  return make_task(sample_mask=BLOCKS, mask_channel=True)


@pytest.fixture(scope="module")
def state(networks, task):
  create = functools.partial(
    init_state,
    generator_optimizer=SGD,
    discriminator_optimizer=SGD,
    image_size=SIZE,
    channels=4,
  )
  return jax.jit(lambda key: create(key, *networks))(jax.random.key(3))


@pytest.fixture(scope="module")
def step(networks, task):
  """A step, not donated, jitted once for all that needs no other."""
  return jax.jit(make_train_step(*networks, SGD, SGD, task))


@pytest.fixture(scope="module")
def gradients(networks, task):
  """Plain gradients of the two losses, each for its own network alone."""
  generator, discriminator = networks
  recorder, start = recorders(task)
  recorded, _ = recorder(start, tiny.batch(BATCH), KEY)
  inputs = recorded.generator.batch_stats["inputs"]
  keys = jax.random.wrap_key_data(recorded.generator.batch_stats["keys"])
  mask = inputs[..., 3:]
  targets = jnp.float32(tiny.batch(BATCH)["image"]) / 127.5 - 1

  def complete(variables):
    outputs, _ = generator.apply(
      variables, inputs, train=True, keys=keys, mutable=["batch_stats"]
    )
    return outputs, (1 - mask) * targets + mask * outputs

  def judge(variables, images):
    return discriminator.apply(variables, images, train=True, mutable=["batch_stats"])

  def of_discriminator(params, stats, drawing):
    completed = complete(drawing)[1]
    real, changed = judge({"params": params, "batch_stats": stats}, targets)
    fake, changed = judge({"params": params, **changed}, completed)
    return jnp.mean(losses.bce_discriminator_loss(real, fake)), changed["batch_stats"]

  def of_generator(params, stats, judging):
    outputs, completed = complete({"params": params, "batch_stats": stats})
    squares = mask * jnp.square(outputs - targets)
    squares = jnp.sum(squares, (1, 2, 3)) / jnp.sum(mask, (1, 2, 3)) / 3
    fooling = losses.bce_generator_loss(judge(judging, completed)[0])
    return jnp.mean(0.9 * squares + 0.3 * fooling)

  return jax.jit(jax.grad(of_discriminator, has_aux=True)), jax.jit(
    jax.grad(of_generator)
  )


def difference(before, after):
  return jax.tree.map(jnp.subtract, before.params, after.params)


def test_updates_are_the_gradients_at_one_point(step, state, gradients):
  of_discriminator, of_generator = gradients
  after, _ = step(state, tiny.batch(BATCH), KEY)
  drawing, judging = state.generator, state.discriminator
  wanted, stats = of_discriminator(
    judging.params, judging.batch_stats, drawing.variables
  )
  assert_close(difference(judging, after.discriminator), wanted, 1e-5)
  assert_close(after.discriminator.batch_stats, stats, 1e-5)
  wanted = of_generator(drawing.params, drawing.batch_stats, judging.variables)
  assert_close(difference(drawing, after.generator), wanted, 1e-5)
  assert optax.tree.norm(wanted) > 0.01


def test_alternating_updates_meet_the_new_discriminator(
  networks, task, state, gradients
):
  of_discriminator, of_generator = gradients
  step = make_train_step(*networks, SGD, SGD, task, update_order="alternating")
  after, _ = jax.jit(step)(state, tiny.batch(BATCH), KEY)
  drawing, judging = state.generator, state.discriminator
  wanted, stats = of_discriminator(
    judging.params, judging.batch_stats, drawing.variables
  )
  assert_close(difference(judging, after.discriminator), wanted, 1e-5)
  assert_close(after.discriminator.batch_stats, stats, 1e-5)
  wanted = of_generator(
    drawing.params, drawing.batch_stats, after.discriminator.variables
  )
  assert_close(difference(drawing, after.generator), wanted, 1e-5)
  at_old = of_generator(drawing.params, drawing.batch_stats, judging.variables)
  assert optax.tree.norm(jax.tree.map(jnp.subtract, wanted, at_old)) > 1e-4


# Randomness, purity, and the ways to run a step


def test_the_same_step_twice_gives_the_same_bits(step, state):
  once = step(state, tiny.batch(BATCH), KEY)
  again = step(state, tiny.batch(BATCH), KEY)
  assert_same(once, again)


RANDOM = {
  "sample_mask": masks.make_sampler("random_region", SIZE),
  "augment": make_augment(image_size=SIZE, flip_horizontal=0.5, brightness=0.3),
  "mask_channel": True,
}


def test_steps_and_examples_draw_their_own():
  step, state = recorders(make_task(**RANDOM))
  # Equal pictures, so that only what is drawn can differ.
  batch = tiny.batch(BATCH)
  batch["image"][:] = batch["image"][0]
  drawn = []
  for number in range(3):
    moved = state.replace(step=jnp.int32(number))
    after, _ = step(moved, batch, KEY)
    drawn += zip(seen(after), after.generator.batch_stats["keys"], strict=True)
  hole, known = np.array([i[..., 3] for i, _ in drawn]), [i[..., :3] for i, _ in drawn]
  assert len(np.unique(hole, axis=0)) == len(drawn)
  assert len(np.unique([np.asarray(key) for _, key in drawn], axis=0)) == len(drawn)
  brightness = [pixels[h == 0].mean() for pixels, h in zip(known, hole, strict=True)]
  assert len(np.unique(np.round(brightness, 3))) == len(drawn)
  other, _ = step(state, batch, jax.random.key(8))
  assert (seen(other)[..., 3] != hole[:BATCH]).any(axis=(1, 2)).all()


def test_what_an_example_gets_does_not_depend_on_the_batch_size():
  task, batch = make_task(**RANDOM), tiny.batch(BATCH)
  step, state = recorders(task)
  whole, _ = step(state, batch, KEY)
  step, state = recorders(task, size=2)
  half, _ = step(state, jax.tree.map(lambda x: x[:2], batch), KEY)
  first = jax.tree.map(lambda x: x[:2], whole.generator.batch_stats)
  assert_same(half.generator.batch_stats, first)


def test_what_one_stream_draws_moves_no_other():
  batch = tiny.batch(BATCH)
  step, state = recorders(make_task(**RANDOM))
  augmented, _ = step(state, batch, KEY)
  step, state = recorders(make_task(**RANDOM | {"augment": UNCHANGED}))
  plain, _ = step(state, batch, KEY)
  assert (seen(augmented)[..., :3] != seen(plain)[..., :3]).any()
  np.testing.assert_array_equal(seen(augmented)[..., 3], seen(plain)[..., 3])
  np.testing.assert_array_equal(
    augmented.generator.batch_stats["keys"], plain.generator.batch_stats["keys"]
  )


def test_two_halves_with_an_axis_name_are_one_batch(networks, task, state, step):
  split = make_train_step(*networks, SGD, SGD, task, axis_name="data")
  batch = tiny.batch(BATCH)
  halves = jax.tree.map(lambda x: x.reshape(2, BATCH // 2, *x.shape[1:]), batch)
  run = jax.jit(jax.vmap(split, in_axes=(None, 0, None), axis_name="data"))
  shards, whole = run(state, halves, KEY), step(state, batch, KEY)
  for i in range(2):
    assert_close(jax.tree.map(lambda x, i=i: x[i], shards), whole, 1e-5)


def test_a_dispatch_of_several_steps_is_those_steps(networks, task, state, step):
  images = tiny.batch(10)
  rows = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]])
  alone, measured = state, []
  for chosen in rows:
    batch = {name: values[chosen] for name, values in images.items()}
    alone, metrics = step(alone, batch, KEY)
    measured.append(metrics)
  dispatch = jax.jit(
    make_dispatch(make_train_step(*networks, SGD, SGD, task)), donate_argnums=0
  )
  given = jax.tree.map(jnp.copy, state)
  together, metrics = dispatch(given, images["image"], images["index"], rows, KEY)
  assert_close(together, alone, 1e-5)
  assert_close(metrics, jax.tree.map(lambda *x: np.stack(x), *measured), 1e-5)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))


def test_a_dispatch_of_one_step_is_that_step():
  batch = tiny.batch(BATCH)
  step, state = recorders(make_task())
  dispatch = jax.jit(make_dispatch(step), donate_argnums=0)
  given = jax.tree.map(jnp.copy, state)
  rows = np.arange(BATCH)[None]
  after, measured = dispatch(given, batch["image"], batch["index"], rows, KEY)
  expected, metrics = step(state, batch, KEY)
  assert_close(after, expected, 1e-6)
  assert_close(measured, jax.tree.map(lambda x: x[None], metrics), 1e-6)


# Options of the step


def test_the_average_follows_slowly():
  step, state = recorders(make_task(), remember=False, ema_decay=0.25)
  assert_same(state.average, state.generator.params)
  average = np.asarray(state.average["canvas"], np.float64)
  for number in range(4):
    state, _ = step(state, tiny.batch(BATCH, seed=number), KEY)
    rate = min(0.25, (1 + number) / (10 + number))  # 1/10, 2/11, 3/12, then 1/4
    new = np.asarray(state.generator.params["canvas"], np.float64)
    average = rate * average + (1 - rate) * new
    assert_close(state.average["canvas"], average, 1e-6)
    assert (np.abs(average - new) > 1e-5).any()
  _, state = recorders(make_task())
  assert state.average is None


def test_the_average_is_what_completes_images(networks, state, step):
  generator, _ = networks
  after, _ = step(state, tiny.batch(BATCH), KEY)
  plain = inference_variables(generator, after)
  assert_same(plain["params"], after.generator.params)
  averaged = inference_variables(
    generator, after.replace(average=state.generator.params)
  )
  assert_same(averaged["params"], state.generator.params)
  assert_same(averaged["batch_stats"], plain["batch_stats"])
  # One update of momentum 0.8 has moved the mean a fifth of the way from 0.
  moved = after.generator.batch_stats["decoder"]["stage1"]["norm"]["mean"]
  assert_close(
    plain["batch_stats"]["decoder"]["stage1"]["norm"]["mean"], 5 * moved, 1e-5
  )


def test_gradient_norms_are_measured_where_asked_for():
  step, before = recorders(make_task(), grad_norms=True)
  after, measured = step(before, tiny.batch(BATCH), KEY)
  for name in ("generator", "discriminator"):
    taken = difference(getattr(before, name), getattr(after, name))
    norm = optax.tree.norm(taken)
    np.testing.assert_allclose(measured[f"grad_norm/{name}"], norm, rtol=1e-4)
  step, state = recorders(make_task())
  assert not any("norm" in name for name in step(state, tiny.batch(BATCH), KEY)[1])


def test_an_unknown_order_is_refused():
  with pytest.raises(ValueError, match="simultaneous or alternating, not 'both'"):
    recorders(make_task(), update_order="both")


# Optimisers


def updates(optimizer, gradients):
  """Returns the updates of successive gradients, `[steps, n]`."""
  params = jnp.zeros(gradients.shape[1])
  state, made = optimizer.init(params), []
  for gradient in gradients:
    change, state = optimizer.update(jnp.asarray(gradient), state, params)
    made.append(change)
  return np.array(made)


def test_adam_is_the_reports():
  gradients = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
  config = tiny.config()
  made = updates(build.optimizer(config, total_steps=5), gradients)
  first = second = np.zeros(8)
  for t, gradient in enumerate(np.float64(gradients), start=1):
    first = 0.5 * first + 0.5 * gradient
    second = 0.999 * second + 0.001 * gradient**2
    rate = first / (1 - 0.5**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(made[t - 1], -2e-4 * rate, rtol=1e-4)
  fast = tiny.config(optimizer__generator_multiplier=10.0)
  same = updates(build.optimizer(fast, total_steps=5), gradients)
  np.testing.assert_array_equal(same, made)
  ten_times = updates(build.generator_optimizer(fast, total_steps=5), gradients)
  np.testing.assert_allclose(ten_times, 10 * made, rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "adadelta"])
def test_every_optimizer_goes_downhill(name):
  gradients = np.random.default_rng(1).normal(size=(1, 8)).astype(np.float32)
  config = tiny.config(optimizer__name=name, optimizer__weight_decay=0.1)
  (made,) = updates(build.optimizer(config, total_steps=5), gradients)
  np.testing.assert_array_equal(np.sign(made), -np.sign(gradients[0]))


def test_a_cosine_schedule_ends_at_zero():
  gradients = np.ones((9, 1), np.float32)
  config = tiny.config(optimizer__schedule="cosine")
  made = updates(build.optimizer(config, total_steps=8), gradients)[:, 0]
  cosine = 2e-4 * (1 + np.cos(np.pi * np.arange(9) / 8)) / 2
  np.testing.assert_allclose(made, -cosine, rtol=1e-4, atol=1e-9)


def test_each_network_gets_its_own_learning_rate(monkeypatch):
  monkeypatch.setitem(build.GENERATORS, "photos", lambda *_, **__: Canvas())
  monkeypatch.setattr(build, "discriminator", lambda config: Judge())
  config = tiny.config(optimizer__generator_multiplier=10.0)
  run = build.run(config, total_steps=5)
  _, state = recorders(run.task, optimizer=run.generator_optimizer)
  after, _ = jax.jit(run.train_step)(state, tiny.batch(BATCH), KEY)
  # Adam's first step is as long as the learning rate wherever there is a gradient.
  slow, fast = (
    max(jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(taken))
    for taken in (
      difference(state.discriminator, after.discriminator),
      difference(state.generator, after.generator),
    )
  )
  np.testing.assert_allclose([slow, fast], [2e-4, 2e-3], rtol=1e-2)


# The evaluation step


def mean_by_hand(error, region):
  region = np.broadcast_to(region, error.shape)
  return np.array([e[r > 0].mean() for e, r in zip(error, region, strict=True)])


@pytest.fixture(scope="module")
def evaluate(networks, task):
  return jax.jit(make_eval_step(networks[0], task))


def test_evaluation_metrics_are_those_of_numpy(evaluate, state, task):
  batch = tiny.batch(BATCH, side=20)  # stored larger: its centre is evaluated
  measured, images = evaluate(state.generator.variables, batch, KEY)
  images = {name: np.asarray(image, np.float64) for name, image in images.items()}
  original, mask, completed = (
    images[name] for name in ("original", "mask", "completed")
  )
  wanted = batch["image"][:, 2:18, 2:18]
  np.testing.assert_allclose(original, wanted / 255, atol=1e-7)
  np.testing.assert_array_equal(images["masked"], original * (1 - mask))
  known = np.broadcast_to(mask == 0, original.shape)
  np.testing.assert_array_equal(to_uint8(completed)[known], wanted[known])
  assert (np.abs(completed - original)[~known] > 0.01).mean() > 0.9

  patch = np.zeros((1, SIZE, SIZE, 1))
  patch[:, 4:12, 4:12] = 1
  error = completed - original
  for name, region in {
    "hole": mask,
    "image": np.ones_like(mask),
    "patch": patch,
  }.items():
    square = mean_by_hand(error**2, region)
    absolute = mean_by_hand(np.abs(error), region)
    assert_close(measured[f"l1_{name}"], absolute, 1e-5)
    assert_close(measured[f"l2_{name}"], square, 1e-5)
    assert_close(measured[f"psnr_{name}"], -10 * np.log10(square), 1e-4)
  # On [-1, 1], where an error counts twice as much.
  assert_close(measured["loss/reconstruction"], 4 * measured["l2_hole"], 1e-4)


def test_one_example_is_evaluated_alike_in_any_batch(evaluate, state):
  variables, batch = state.generator.variables, tiny.batch(BATCH)
  whole = evaluate(variables, batch, KEY)
  for rows in ([3, 1], [0, 2]):
    part = evaluate(variables, jax.tree.map(lambda x, r=rows: x[r], batch), KEY)
    expected = jax.tree.map(lambda x, r=rows: x[np.array(r)], whole)
    np.testing.assert_array_equal(part[1]["mask"], expected[1]["mask"])
    assert_close(part, expected, 1e-5)
  other = evaluate(variables, batch | {"index": batch["index"] + 1}, KEY)
  assert (other[1]["mask"] != whole[1]["mask"]).any(axis=(1, 2, 3)).all()
  again = evaluate(variables, batch, jax.random.key(8))
  assert (again[1]["mask"] != whole[1]["mask"]).any(axis=(1, 2, 3)).all()


def test_noise_is_the_examples_own(evaluate, state):
  batch = tiny.batch(BATCH)
  batch["image"][:] = 128
  batch["index"][1] = batch["index"][0]
  _, images = evaluate(state.generator.variables, batch, KEY)
  completed = np.asarray(images["completed"])
  np.testing.assert_array_equal(completed[0], completed[1])
  both = np.asarray(images["mask"][0] * images["mask"][2])[..., 0] > 0
  assert both.any()
  assert (completed[0][both] != completed[2][both]).all()


@pytest.mark.parametrize("normalization", ["symmetric", "unit", "minmax"])
def test_a_patch_is_pasted_into_the_hole_alone(normalization):
  task = make_task(
    predict="patch", sample_mask=SMALL_CENTER, normalization=normalization
  )
  canvas = Canvas(task.output_size, remember=False)
  drawn = np.random.default_rng(0).uniform(0.1, 0.9, (BATCH, 8, 8, 3))
  evaluate = make_eval_step(canvas, task)
  batch = tiny.batch(BATCH)
  batch["image"][:, 0, 0] = [0, 255, 0]  # minmax is then the range of all pixels
  offset, factor = (0.0, 1.0) if normalization == "unit" else (0.5, 0.5)
  variables = {"params": {"canvas": jnp.float32((drawn - offset) / factor)}}
  _, images = evaluate(variables, batch, KEY)
  expected = batch["image"] / 255
  expected[:, 5:11, 5:11] = drawn[:, 1:7, 1:7]
  np.testing.assert_allclose(images["completed"], expected, atol=1e-6)


def test_an_exact_answer_has_the_highest_psnr():
  task, batch = make_task(), tiny.batch(BATCH)
  variables = {"params": {"canvas": jnp.float32(batch["image"] / 127.5 - 1)}}
  measured, _ = make_eval_step(Canvas(remember=False), task)(variables, batch, KEY)
  for region in ("hole", "image", "patch"):
    assert_close(measured[f"psnr_{region}"], np.full(BATCH, 100.0), 1e-6)
    assert_close(measured[f"l1_{region}"], np.zeros(BATCH), 1e-6)


# Batches in parts


class Plain(nn.Module):
  """A generator and a discriminator without BatchNorm: each pixel by itself."""

  features: int

  @nn.compact
  def __call__(self, x, *, train=False, keys=None, features=False):
    hidden = nn.tanh(nn.Dense(5)(x))
    if keys is not None and train:
      noise = jax.vmap(lambda key: jax.random.normal(key, (5,)))(keys)
      hidden = hidden + noise[:, None, None]
    self.variable("batch_stats", "seen", jnp.zeros, ()).value += 1.0
    return nn.Dense(self.features)(hidden)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(parts):
  task = make_task(sample_mask=masks.make_sampler("random_block", SIZE), r1=0.1)
  generator, discriminator = Plain(3), Plain(1)
  x = jnp.zeros((1, SIZE, SIZE, 3))

  def network(module, seed):
    variables = module.init(jax.random.key(seed), x)
    params = variables["params"]
    return NetworkState(params, variables["batch_stats"], SGD.init(params))

  state = TrainState(
    jnp.zeros((), jnp.int32), network(generator, 0), network(discriminator, 1), None
  )
  batch = tiny.batch(4)

  def after(accumulate):
    step = make_train_step(
      generator, discriminator, SGD, SGD, task, grad_norms=True, accumulate=accumulate
    )
    return jax.jit(step)(state, batch, KEY)

  (whole, measured), (in_parts, measured_in_parts) = after(1), after(parts)
  for name in ("generator", "discriminator"):
    one, other = getattr(whole, name), getattr(in_parts, name)
    assert_close(other.params, one.params, 1e-5)
    moved = jax.tree.map(
      lambda a, b: float(jnp.abs(a - b).max()), one.params, getattr(state, name).params
    )
    assert max(jax.tree.leaves(moved)) > 1e-4
  assert_close(measured_in_parts, measured, 1e-5)
  # The running statistics have seen one part after the other.
  seen = in_parts.generator.batch_stats["seen"] - state.generator.batch_stats["seen"]
  assert seen == parts


def test_parts_that_cannot_be():
  task = make_task()
  with pytest.raises(ValueError, match="update_order=simultaneous alone"):
    recorders(task, accumulate=2, update_order="alternating")
  step, state = recorders(task, accumulate=3, remember=False)
  with pytest.raises(ValueError, match=f"batch of {BATCH} cannot .* 3 equal parts"):
    step(state, tiny.batch(BATCH), KEY)
