"""Adversarial losses against Optax, PyTorch and NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from stock import stock_layers

from ctx_encoder import losses
from ctx_encoder.models import patchgan

LOGITS = np.random.default_rng(1).normal(0, 4, (2, 3, 5, 5, 1)).astype(np.float32)


def cross_entropy(logits, label):
  """Optax's, summed up in float64: `[B]`."""
  patches = optax.losses.sigmoid_binary_cross_entropy(
    jnp.asarray(logits, jnp.float32), jnp.full(np.shape(logits), label)
  )
  return np.asarray(patches, float).reshape(len(logits), -1).mean(axis=1)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 5, 1), (3, 25), (75,)])
def test_adversarial_values(dtype, shape):
  real, fake = (jnp.asarray(x, dtype).reshape(shape) for x in LOGITS)
  discriminator = losses.bce_discriminator_loss(real, fake)
  generator = losses.bce_generator_loss(fake)
  assert discriminator.shape == generator.shape == shape[:1]
  assert discriminator.dtype == generator.dtype == jnp.float32
  expected = cross_entropy(real, 1.0) + cross_entropy(fake, 0.0)
  np.testing.assert_allclose(discriminator, expected, rtol=1e-5)
  np.testing.assert_allclose(generator, cross_entropy(fake, 1.0), rtol=1e-5)
  np.testing.assert_allclose(  # the definition
    generator,
    -np.log(1 / (1 + np.exp(-np.asarray(fake, float)))).reshape(len(fake), -1).mean(1),
    rtol=1e-5,
  )


def test_adversarial_gradients():
  real, fake = map(jnp.asarray, LOGITS)
  sigmoid = 1 / (1 + np.exp(-LOGITS.astype(float)))
  to_real, to_fake = jax.grad(
    lambda *logits: losses.bce_discriminator_loss(*logits).sum(), argnums=(0, 1)
  )(real, fake)
  np.testing.assert_allclose(to_real, (sigmoid[0] - 1) / 25, rtol=1e-4, atol=1e-8)
  np.testing.assert_allclose(to_fake, sigmoid[1] / 25, rtol=1e-4, atol=1e-8)
  wish = jax.grad(lambda logits: losses.bce_generator_loss(logits).sum())(fake)
  np.testing.assert_allclose(wish, (sigmoid[1] - 1) / 25, rtol=1e-4, atol=1e-8)
  small = real[:, :2, :2] / 4, fake[:, :2, :2] / 4
  check_grads(losses.bce_discriminator_loss, small, order=1, modes=["rev"], rtol=2e-2)
  check_grads(losses.bce_generator_loss, small[1:], order=1, modes=["rev"], rtol=2e-2)


def test_logits_of_zero():
  logits = jnp.zeros((2, 7, 7, 1))
  np.testing.assert_allclose(
    losses.bce_discriminator_loss(logits, logits), 2 * np.log(2), 1e-6
  )
  np.testing.assert_allclose(losses.bce_generator_loss(logits), np.log(2), 1e-6)


@pytest.mark.parametrize("logit", [50.0, 1e4, 1e30])
def test_large_logits_do_not_overflow(logit):
  sure = jnp.full((1, 2, 2, 1), logit)
  assert losses.bce_discriminator_loss(sure, -sure) <= 2 * np.exp(-50)
  np.testing.assert_allclose(losses.bce_discriminator_loss(-sure, sure), 2 * logit)
  # Non-saturating: the generator's gradient does not vanish.
  np.testing.assert_allclose(losses.bce_generator_loss(-sure), logit)
  gradient = jax.grad(lambda logits: losses.bce_generator_loss(logits).sum())(-sure)
  np.testing.assert_allclose(gradient, -0.25)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_stay_visible(bad):
  real, fake = map(jnp.asarray, LOGITS)
  values = losses.bce_discriminator_loss(real, fake.at[1, 2, 3, 0].set(bad))
  np.testing.assert_array_equal(np.isfinite(values), [True, False, True])
  values = losses.bce_generator_loss(fake.at[1, 2, 3, 0].set(-bad))
  np.testing.assert_array_equal(np.isfinite(values), [True, False, True])


def test_wrong_logits_are_refused_while_tracing():
  patches, one = (
    jax.ShapeDtypeStruct((3, 5, 5, 1), "f4"),
    jax.ShapeDtypeStruct((), "f4"),
  )
  column = jax.ShapeDtypeStruct((3, 1, 1, 1), "f4")
  with pytest.raises(ValueError, match=r"not \(3, 5, 5, 1\) and \(3, 1, 1, 1\)"):
    jax.eval_shape(losses.bce_discriminator_loss, patches, column)
  with pytest.raises(ValueError, match=r"logits_real must .* the shape \(\)"):
    jax.eval_shape(losses.bce_discriminator_loss, one, one)
  with pytest.raises(ValueError, match=r"logits_fake must .* the shape \(\)"):
    jax.eval_shape(losses.bce_generator_loss, one)


# All games


def numpy_games(real, fake):
  """Discriminator's and generator's loss of each patch, in float64."""
  return {
    "least_squares": ((real - 1) ** 2 / 2, fake**2 / 2, (fake - 1) ** 2 / 2),
    "hinge": (np.maximum(0, 1 - real), np.maximum(0, 1 + fake), -fake),
    "wasserstein": (-real, fake, -fake),
    "bce": (np.logaddexp(0, -real), np.logaddexp(0, fake), np.logaddexp(0, -fake)),
  }


GAMES = {
  name: (
    getattr(losses, f"{name}_discriminator_loss"),
    getattr(losses, f"{name}_generator_loss"),
  )
  for name in numpy_games(0.0, 0.0)
}
every_game = pytest.mark.parametrize("game", GAMES)


def patch_means(values):
  return values.reshape(len(values), -1).mean(axis=1)


@every_game
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(3, 5, 5, 1), (75,)])
def test_games(game, dtype, shape):
  real, fake = (jnp.asarray(x, dtype).reshape(shape) for x in LOGITS)
  discriminator, generator = GAMES[game]
  exact = [np.asarray(x, float) for x in (real, fake)]
  as_real, as_fake, wish = map(patch_means, numpy_games(*exact)[game])
  of_discriminator, of_generator = discriminator(real, fake), generator(fake)
  assert of_discriminator.dtype == of_generator.dtype == jnp.float32
  np.testing.assert_allclose(of_discriminator, as_real + as_fake, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(of_generator, wish, rtol=1e-5, atol=1e-6)


@every_game
def test_gradients_of_games(game):
  real, fake = (jnp.asarray(x[:, :2, :2]) / 4 for x in LOGITS)
  discriminator, generator = GAMES[game]
  compiled = jax.jit(discriminator), jax.jit(generator)
  check_grads(compiled[0], (real, fake), order=1, modes=["rev"], rtol=2e-2)
  check_grads(compiled[1], (fake,), order=1, modes=["rev"], rtol=2e-2)


@every_game
def test_games_of_nan(game):
  discriminator, generator = GAMES[game]
  real, fake = map(jnp.asarray, LOGITS)
  poisoned = fake.at[1, 2, 3, 0].set(np.nan)
  for values in (discriminator(real, poisoned), generator(poisoned)):
    np.testing.assert_array_equal(np.isfinite(values), [True, False, True])


@every_game
def test_games_refuse_wrong_shapes(game):
  discriminator, generator = GAMES[game]
  logits, wrong = jnp.zeros((3, 5, 5, 1)), jnp.zeros((3, 5, 5))
  with pytest.raises(ValueError, match=r"not \(3, 5, 5, 1\) and \(3, 5, 5\)"):
    discriminator(logits, wrong)
  with pytest.raises(ValueError, match=r"logits, \(3, 5, 5, 1\), not \(3, 5, 5\)"):
    discriminator(logits, logits, fake=wrong)
  with pytest.raises(ValueError, match=r"logits, \(3, 5, 5, 1\), not \(3, 5, 5\)"):
    generator(logits, fake=wrong)


def test_hinge_and_cross_entropy_are_pytorchs():
  torch = pytest.importorskip("torch")
  real, fake = (torch.from_numpy(x.copy()) for x in LOGITS)
  functional = torch.nn.functional
  hinge = functional.relu(1 - real).mean((1, 2, 3)) + functional.relu(1 + fake).mean(
    (1, 2, 3)
  )
  np.testing.assert_allclose(losses.hinge_discriminator_loss(*LOGITS), hinge, rtol=1e-5)
  entropy = functional.binary_cross_entropy_with_logits
  ones, zeros = torch.ones(real.shape), torch.zeros(real.shape)
  expected = [
    entropy(real, 0.9 * ones, reduction="none").mean((1, 2, 3)),
    entropy(fake, zeros, reduction="none").mean((1, 2, 3)),
  ]
  smoothed = losses.bce_discriminator_loss(*LOGITS, smoothing=0.1)
  np.testing.assert_allclose(smoothed, sum(expected), rtol=1e-5)


def test_smoothing_moves_the_label_of_real_images():
  real, fake = (np.asarray(x, float) for x in LOGITS)
  expected = patch_means((real - 0.8) ** 2 / 2) + patch_means(fake**2 / 2)
  value = losses.least_squares_discriminator_loss(*LOGITS, smoothing=0.2)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  for loss in (losses.bce_discriminator_loss, losses.least_squares_discriminator_loss):
    for smoothing in (-0.1, 0.5, np.nan):
      with pytest.raises(ValueError, match=r"smoothing must be in \[0, 0\.5\)"):
        loss(*LOGITS, smoothing=smoothing)


def test_the_saturating_loss_is_the_minimax_loss():
  fake = np.asarray(LOGITS[1], float)
  expected = patch_means(np.log(1 - 1 / (1 + np.exp(-fake))))
  value = losses.bce_generator_loss(LOGITS[1], saturating=True)
  np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize("axis_name", [None, "data"])
def test_relativistic_average(axis_name):
  real, fake = (np.asarray(x, float) for x in LOGITS)

  def relative(*logits):
    return losses.relativistic_average(*logits, axis_name=axis_name)

  if axis_name:  # one example per device; the mean is that of the batch
    split = [x[:, None] for x in LOGITS]
    found = jax.vmap(relative, axis_name=axis_name)(*split)
    found = [x[:, 0] for x in found]
  else:
    found = relative(*LOGITS)
  np.testing.assert_allclose(found[0], real - fake.mean(), rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(found[1], fake - real.mean(), rtol=1e-5, atol=1e-5)
  with pytest.raises(ValueError, match="one shape"):
    losses.relativistic_average(LOGITS[0], LOGITS[1][:1])


# Labels of patches


@pytest.mark.slow
def test_fake_patches_are_those_whose_logits_depend_on_the_hole():
  depth, size = 2, 40
  discriminator = patchgan.PatchGAN(depth, patchgan.Settings(width=0.05))
  mask = np.zeros((1, size, size, 1), np.float32)
  mask[0, 3:6, 25:30] = 1
  images = jnp.zeros((1, size, size, 3))
  variables = discriminator.init(jax.random.key(0), images)
  # With positive weights every pixel of a receptive field changes the logit.
  variables = jax.tree.map(lambda x: jnp.abs(x) + 0.01, variables)
  moved = discriminator.apply(variables, images + 10 * mask)
  moved = moved != discriminator.apply(variables, images)
  fake = losses.fake_patches(jnp.asarray(mask), patchgan.windows(depth))
  np.testing.assert_array_equal(fake, moved)
  assert 0 < fake.sum() < fake.size


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_one_pixel_is_in_the_receptive_fields_of_as_many_patches(depth):
  field = patchgan.receptive_field(patchgan.kernels_and_strides(depth))
  size = 256
  mask = jnp.zeros((1, size, size, 1)).at[0, 128, 128].set(1)
  fake = losses.fake_patches(mask, patchgan.windows(depth))
  count = fake.sum(axis=1).max()
  assert abs(count - field / 2**depth) <= 1


@every_game
def test_patches_without_hole_count_as_real(game):
  real, logits = (np.asarray(x, float) for x in LOGITS)
  fake = np.zeros((3, 5, 5, 1), np.float32)
  fake[0] = 1
  fake[1, :2] = 1
  as_real, as_fake, wish = numpy_games(real, logits)[game]
  known = numpy_games(logits, logits)[game][0]
  discriminator, generator = GAMES[game]
  expected = patch_means(as_real) + patch_means(np.where(fake, as_fake, known))
  np.testing.assert_allclose(
    discriminator(*LOGITS, fake=jnp.asarray(fake)), expected, rtol=1e-5, atol=1e-6
  )
  expected = [wish[0].mean(), wish[1, :2].mean(), 0]
  np.testing.assert_allclose(
    generator(LOGITS[1], fake=jnp.asarray(fake)), expected, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize("game", ["bce", "least_squares"])
def test_soft_labels_mix_the_two_losses(game):
  """Up to terms without a gradient: the loss with the soft label itself."""
  discriminator, generator = GAMES[game]
  fake = np.random.default_rng(0).random((3, 5, 5, 1)).astype(np.float32)
  real, logits = (np.asarray(x, float) for x in LOGITS)
  as_real, _, wish = numpy_games(real, logits)[game]
  if game == "bce":
    probability = 1 / (1 + np.exp(-logits))
    soft = -fake * np.log(1 - probability) - (1 - fake) * np.log(probability)
  else:
    soft = (logits - (1 - fake)) ** 2 / 2 + fake * (1 - fake) / 2
  found = discriminator(*LOGITS, fake=jnp.asarray(fake))
  np.testing.assert_allclose(found, patch_means(as_real) + patch_means(soft), rtol=1e-5)
  expected = (fake * wish).sum((1, 2, 3)) / fake.sum((1, 2, 3))
  found = generator(LOGITS[1], fake=jnp.asarray(fake))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_fake_patches_refuse_invalid_masks():
  with pytest.raises(ValueError, match=r"\[B, H, W, 1\], not \(8, 8, 1\)"):
    losses.fake_patches(jnp.zeros((8, 8, 1)), [(4, 2, "SAME")])
  with pytest.raises(ValueError, match="1 in the hole"):
    losses.fake_patches(jnp.full((1, 8, 8, 1), 0.5), [(4, 2, "SAME")])


# Gradient penalties


def quadratic(images):
  """Logits of two patches with known gradients: x.x / 2 and 3 times that."""
  value = jnp.sum(jnp.square(images), axis=(1, 2, 3)) / 2
  return jnp.stack([value, 3 * value], axis=1)


def test_r1_and_r2_of_a_known_gradient():
  images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 2)), jnp.float32)
  expected = (2 * np.asarray(images, float)) ** 2  # the mean has the gradient 2 x
  for penalty in (losses.r1_penalty, losses.r2_penalty):
    found = penalty(quadratic, images)
    np.testing.assert_allclose(found, expected.sum((1, 2, 3)) / 2, rtol=1e-5)


def test_gradient_penalty_of_a_known_gradient():
  draw = np.random.default_rng(0)
  real, fake = jnp.asarray(draw.normal(size=(2, 3, 4, 4, 2)), jnp.float32)
  key = jax.random.key(1)
  share = np.asarray(jax.random.uniform(key, (3, 1, 1, 1)), float)
  between = share * np.asarray(real, float) + (1 - share) * np.asarray(fake, float)
  slope = np.sqrt(((2 * between) ** 2).sum((1, 2, 3)))
  found = losses.gradient_penalty(quadratic, real, fake, key)
  np.testing.assert_allclose(found, (slope - 1) ** 2, rtol=1e-5)
  with pytest.raises(ValueError, match="one shape"):
    losses.gradient_penalty(quadratic, real, fake[:2], key)


def test_a_constant_discriminator_has_a_finite_gradient():
  images = jnp.ones((2, 3, 3, 1))

  def penalty(weight):
    def discriminate(x):
      return weight * jnp.sum(x, axis=(1, 2, 3))

    key = jax.random.key(0)
    return losses.gradient_penalty(discriminate, images, images, key).sum()

  value, slope = jax.value_and_grad(penalty)(0.0)
  assert value == 2
  assert np.isfinite(slope)


def test_penalties_have_the_gradients_of_stock_layers():
  discriminator = patchgan.PatchGAN(1, patchgan.Settings(width=0.05))
  draw = np.random.default_rng(0)
  images = jnp.asarray(draw.uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
  variables = discriminator.init(jax.random.key(0), images)

  def penalty(params):
    full = variables | {"params": params}
    return losses.r1_penalty(lambda x: discriminator.apply(full, x), images).sum()

  found = jax.jit(jax.grad(penalty))(variables["params"])
  with stock_layers():
    expected = jax.jit(lambda params: jax.grad(penalty)(params))(variables["params"])
  kernel = expected["stage1"]["conv"]["kernel"]
  assert jnp.abs(kernel).max() > 1e-3
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), found, expected
  )


def test_r1_is_of_each_image_with_running_statistics_only():
  discriminator = patchgan.PatchGAN(1, patchgan.Settings(width=0.05))
  draw = np.random.default_rng(0)
  images = jnp.asarray(draw.uniform(-1, 1, (3, 16, 16, 3)), jnp.float32)
  variables = discriminator.init(jax.random.key(0), images)

  def with_running_statistics(x):
    return discriminator.apply(variables, x)

  def with_batch_statistics(x):
    return discriminator.apply(variables, x, train=True, mutable=["batch_stats"])[0]

  def by_the_definition(x):  # one image, the gradient of its mean logit
    gradient = jax.grad(lambda x: with_running_statistics(x[None]).mean())(x)
    return jnp.sum(jnp.square(gradient)) / 2

  expected = jax.jit(jax.vmap(by_the_definition))(images)
  found, wrong = (
    jax.jit(functools.partial(losses.r1_penalty, discriminate))(images)
    for discriminate in (with_running_statistics, with_batch_statistics)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert (np.abs(np.log(wrong / expected)) > 0.05).any()


def test_a_lazy_penalty_has_the_mean_of_the_penalty():
  images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4, 2)), jnp.float32)

  @jax.jit
  def lazy(scale, step):
    def penalty():
      return losses.r1_penalty(lambda x: quadratic(scale * x), images)

    return losses.lazy_penalty(penalty, step, 4)

  values = np.stack([lazy(1.0, step) for step in range(8)])
  expected = losses.r1_penalty(quadratic, images)
  assert values.dtype == np.float32
  np.testing.assert_allclose(values[[0, 4]], 4 * np.stack([expected] * 2), rtol=1e-6)
  assert not values[[1, 2, 3, 5, 6, 7]].any()
  np.testing.assert_allclose(values.mean(axis=0), expected, rtol=1e-6)
  # The penalty grows as scale^4, and so its slope at 1 is 4 times the penalty.
  slope = jax.grad(lambda scale, step: lazy(scale, step).sum())
  np.testing.assert_allclose(slope(1.0, 4), 16 * expected.sum(), rtol=1e-5)
  assert slope(1.0, 5) == 0
  always = losses.lazy_penalty(lambda: expected.astype(jnp.bfloat16).mean(), 7, 1)
  assert (always.shape, always.dtype) == ((), jnp.float32)
  with pytest.raises(ValueError, match="interval must be at least 1, not 0"):
    losses.lazy_penalty(lambda: expected, 0, 0)


def test_penalties_refuse_images_without_a_batch():
  with pytest.raises(ValueError, match=r"images_real must be \[B, H, W, C\]"):
    losses.r1_penalty(quadratic, jnp.zeros((4, 4, 3)))
  with pytest.raises(ValueError, match="batch axis"):
    losses.r1_penalty(jnp.sum, jnp.zeros((1, 4, 4, 3)))
