"""Losses against NumPy in float64 and against Optax: values, gradients, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads

from ctx_encoder import losses

SHAPE = (5, 6, 8, 3)
REFERENCES = {
  losses.masked_l2: (np.square, lambda error: 2 * error),
  losses.masked_l1: (np.abs, np.sign),
}
masked = pytest.mark.parametrize("loss", list(REFERENCES))
per_what = pytest.mark.parametrize("per", ["hole", "image"])


def batch(dtype=np.float32, shape=SHAPE, seed=0):
  """Predictions, targets, a mask whose last two holes are all and nothing, weights."""
  draw = np.random.default_rng(seed)
  predictions, targets = draw.uniform(-1, 1, (2, *shape))
  mask = (draw.random((*shape[:3], 1)) < 0.4).astype(np.float32)
  mask[-2], mask[-1] = 1, 0
  weights = draw.uniform(0, 10, mask.shape)
  arrays = (predictions, targets, mask, weights)
  return [jnp.asarray(x, jnp.float32).astype(dtype) for x in arrays]


def oracle(loss, predictions, targets, mask, *, per, weights=None):
  """The formula in float64: the losses `[B]`, and the gradient of their sum."""
  error, slope = REFERENCES[loss]
  predictions, targets, mask = (
    np.asarray(x, float) for x in (predictions, targets, mask)
  )
  factor = mask * (1 if weights is None else np.asarray(weights, float))
  values, grads = [], []
  for i in range(len(predictions)):
    pixels = mask[i].sum() if per == "hole" else mask[i].size
    scale = 1 / (max(pixels, 1) * predictions.shape[-1])
    difference = predictions[i] - targets[i]
    values.append((factor[i] * error(difference)).sum() * scale)
    grads.append(factor[i] * slope(difference) * scale)
  return np.array(values), np.array(grads)


@masked
@per_what
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float16])
@pytest.mark.parametrize("weighted", [False, True])
def test_masked_values_and_gradients(loss, per, dtype, weighted):
  predictions, targets, mask, weights = batch(dtype)
  given = weights if weighted else None
  expected, slope = oracle(loss, predictions, targets, mask, per=per, weights=given)
  call = functools.partial(loss, per=per, weights=given)
  values = call(predictions, targets, mask)
  assert values.dtype == jnp.float32
  np.testing.assert_allclose(values, expected, rtol=1e-5)
  to_predictions, to_targets = jax.grad(
    lambda *images: call(*images, mask).sum(), argnums=(0, 1)
  )(predictions, targets)
  # A gradient has the type of what it is taken by, and so its precision.
  rtol = 1e-5 if dtype == np.float32 else float(jnp.finfo(dtype).eps)
  np.testing.assert_allclose(np.asarray(to_predictions, float), slope, rtol, 1e-7)
  np.testing.assert_array_equal(to_predictions, -to_targets)
  assert not np.asarray(to_predictions[np.broadcast_to(mask == 0, SHAPE)]).any()


@per_what
def test_masked_l2_by_finite_differences(per):
  predictions, targets, mask, weights = batch(shape=(3, 3, 4, 2))
  loss = functools.partial(losses.masked_l2, mask=mask, per=per, weights=weights)
  check_grads(loss, (predictions, targets), order=1, modes=["rev"], rtol=2e-2)


@masked
def test_by_hand(loss):
  ones, zeros = jnp.ones((1, 2, 4, 3)), jnp.zeros((1, 2, 4, 3))
  mask = jnp.zeros((1, 2, 4, 1)).at[0, 0, :2].set(1)
  assert loss(ones, zeros, mask) == 1
  assert loss(ones, zeros, mask, per="image") == 0.25
  assert loss(ones, zeros, mask, weights=jnp.full_like(mask, 3)) == 3
  np.testing.assert_array_equal(
    loss(3 * ones, ones, mask), {losses.masked_l2: [4], losses.masked_l1: [2]}[loss]
  )


@masked
def test_full_and_empty_holes(loss):
  predictions, targets, mask, _ = batch()
  error, _ = REFERENCES[loss]
  difference = np.asarray(predictions, float) - np.asarray(targets, float)
  for per in ("hole", "image"):
    values = loss(predictions, targets, mask, per=per)
    np.testing.assert_allclose(values[-2], error(difference[-2]).mean(), rtol=1e-5)
    assert values[-1] == 0


@masked
def test_jit_and_vmap(loss):
  predictions, targets, mask, weights = batch()
  plain = loss(predictions, targets, mask, weights=weights)
  call = lambda p, t, m, w: loss(p, t, m, weights=w)  # noqa: E731
  np.testing.assert_allclose(
    jax.jit(call)(predictions, targets, mask, weights), plain, rtol=1e-6
  )
  pairs = [jnp.stack([x, x[::-1]]) for x in (predictions, targets, mask, weights)]
  np.testing.assert_allclose(
    jax.vmap(call)(*pairs), np.stack([plain, plain[::-1]]), rtol=1e-6
  )


@masked
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("hole", [True, False])
def test_what_is_not_finite_stays_visible(loss, bad, hole):
  predictions, targets, mask, _ = batch()
  y, x = np.argwhere(np.asarray(mask[1, ..., 0]) == hole)[0]
  clean = loss(predictions, targets, mask)
  values = loss(predictions.at[1, y, x, 2].set(bad), targets, mask)
  assert not np.isfinite(values[1])
  np.testing.assert_array_equal(np.delete(values, 1), np.delete(clean, 1))


def test_squares_beyond_half_precision():
  ones = jnp.ones((1, 4, 4, 3), jnp.float16)
  mask = jnp.ones((1, 4, 4, 1))
  assert losses.masked_l2(300 * ones, -300 * ones, mask) == 360_000


@masked
@pytest.mark.parametrize(
  ("wrong", "named"),
  [
    ({"mask": (5, 6, 8, 3)}, ["(5, 6, 8, 1)", "not (5, 6, 8, 3)"]),
    ({"mask": (5, 6, 8)}, ["(5, 6, 8, 1)", "not (5, 6, 8)"]),
    ({"mask": (1, 6, 8, 1)}, ["(5, 6, 8, 1)", "not (1, 6, 8, 1)"]),
    ({"mask": (5, 8, 6, 1)}, ["(5, 6, 8, 1)", "not (5, 8, 6, 1)"]),
    ({"targets": (5, 6, 8, 1)}, ["(5, 6, 8, 3) and (5, 6, 8, 1)"]),
    ({"targets": (1, 6, 8, 3)}, ["(5, 6, 8, 3) and (1, 6, 8, 3)"]),
    ({"targets": (5, 6, 8, 1), "mask": SHAPE}, ["(5, 6, 8, 3) and (5, 6, 8, 1)"]),
    ({"predictions": (5, 6, 8, 1), "mask": SHAPE}, ["(5, 6, 8, 1) and (5, 6, 8, 3)"]),
    ({"predictions": (6, 8, 3), "targets": (6, 8, 3)}, ["(6, 8, 3) and (6, 8, 3)"]),
    ({"weights": SHAPE}, ["(5, 6, 8, 1)", "not (5, 6, 8, 3)"]),
    ({"weights": (5,)}, ["(5, 6, 8, 1)", "not (5,)"]),
    ({"weights": ()}, ["(5, 6, 8, 1)", "not ()"]),
  ],
)
def test_wrong_shapes_are_refused_while_tracing(loss, wrong, named):
  shapes = {"predictions": SHAPE, "targets": SHAPE, "mask": (5, 6, 8, 1)} | wrong
  arrays = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()}
  with pytest.raises(ValueError, match="must") as error:
    jax.eval_shape(loss, **arrays)
  for text in named:
    assert text in str(error.value)


@masked
def test_per_is_one_of_two(loss):
  with pytest.raises(ValueError, match="per must be 'hole' or 'image', not 'pixel'"):
    loss(*batch()[:3], per="pixel")


def test_no_examples_no_losses():
  images, mask = jnp.zeros((0, 4, 4, 3)), jnp.zeros((0, 4, 4, 1))
  assert losses.masked_l2(images, images, mask).shape == (0,)
  assert losses.masked_l1(images, images, mask, per="image").shape == (0,)
  logits = jnp.zeros((0, 3, 3, 1))
  assert losses.discriminator_loss(logits, logits).shape == (0,)
  assert losses.generator_loss(logits).shape == (0,)


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
  judged = losses.discriminator_loss(real, fake)
  wished = losses.generator_loss(fake)
  assert judged.shape == wished.shape == shape[:1]
  assert judged.dtype == wished.dtype == jnp.float32
  expected = cross_entropy(real, 1.0) + cross_entropy(fake, 0.0)
  np.testing.assert_allclose(judged, expected, rtol=1e-5)
  np.testing.assert_allclose(wished, cross_entropy(fake, 1.0), rtol=1e-5)
  np.testing.assert_allclose(  # the definition, with its logarithm of a sigmoid
    wished,
    -np.log(1 / (1 + np.exp(-np.asarray(fake, float)))).reshape(len(fake), -1).mean(1),
    rtol=1e-5,
  )


def test_adversarial_gradients():
  real, fake = map(jnp.asarray, LOGITS)
  sigmoid = 1 / (1 + np.exp(-LOGITS.astype(float)))
  to_real, to_fake = jax.grad(
    lambda *logits: losses.discriminator_loss(*logits).sum(), argnums=(0, 1)
  )(real, fake)
  np.testing.assert_allclose(to_real, (sigmoid[0] - 1) / 25, rtol=1e-4, atol=1e-8)
  np.testing.assert_allclose(to_fake, sigmoid[1] / 25, rtol=1e-4, atol=1e-8)
  wish = jax.grad(lambda logits: losses.generator_loss(logits).sum())(fake)
  np.testing.assert_allclose(wish, (sigmoid[1] - 1) / 25, rtol=1e-4, atol=1e-8)
  small = real[:, :2, :2] / 4, fake[:, :2, :2] / 4
  check_grads(losses.discriminator_loss, small, order=1, modes=["rev"], rtol=2e-2)
  check_grads(losses.generator_loss, small[1:], order=1, modes=["rev"], rtol=2e-2)


def test_adversarial_under_jit_and_vmap():
  plain = losses.discriminator_loss(*LOGITS)
  jitted = jax.jit(losses.discriminator_loss)(*LOGITS)
  np.testing.assert_allclose(jitted, plain, rtol=1e-6)
  mapped = jax.vmap(losses.discriminator_loss)(*LOGITS)
  assert mapped.shape == (3, 5)
  np.testing.assert_allclose(mapped.mean(axis=1), plain, rtol=1e-5)


def test_a_discriminator_without_an_idea():
  logits = jnp.zeros((2, 7, 7, 1))
  np.testing.assert_allclose(
    losses.discriminator_loss(logits, logits), 2 * np.log(2), 1e-6
  )
  np.testing.assert_allclose(losses.generator_loss(logits), np.log(2), 1e-6)


@pytest.mark.parametrize("logit", [50.0, 1e4, 1e30])
def test_sure_discriminators(logit):
  sure = jnp.full((1, 2, 2, 1), logit)
  assert losses.discriminator_loss(sure, -sure) <= 2 * np.exp(-50)
  np.testing.assert_allclose(losses.discriminator_loss(-sure, sure), 2 * logit)
  # Non-saturating: the surer the discriminator, the stronger the generator's gradient.
  np.testing.assert_allclose(losses.generator_loss(-sure), logit)
  gradient = jax.grad(lambda logits: losses.generator_loss(logits).sum())(-sure)
  np.testing.assert_allclose(gradient, -0.25)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_stay_visible(bad):
  real, fake = map(jnp.asarray, LOGITS)
  values = losses.discriminator_loss(real, fake.at[1, 2, 3, 0].set(bad))
  np.testing.assert_array_equal(np.isfinite(values), [True, False, True])
  values = losses.generator_loss(fake.at[1, 2, 3, 0].set(-bad))
  np.testing.assert_array_equal(np.isfinite(values), [True, False, True])


def test_wrong_logits_are_refused_while_tracing():
  patches, one = (
    jax.ShapeDtypeStruct((3, 5, 5, 1), "f4"),
    jax.ShapeDtypeStruct((), "f4"),
  )
  column = jax.ShapeDtypeStruct((3, 1, 1, 1), "f4")
  with pytest.raises(ValueError, match=r"not \(3, 5, 5, 1\) and \(3, 1, 1, 1\)"):
    jax.eval_shape(losses.discriminator_loss, patches, column)
  with pytest.raises(ValueError, match=r"logits_real must .* the shape \(\)"):
    jax.eval_shape(losses.discriminator_loss, one, one)
  with pytest.raises(ValueError, match=r"logits_fake must .* the shape \(\)"):
    jax.eval_shape(losses.generator_loss, one)


def test_combine():
  terms = {
    "reconstruction": jnp.asarray([1.0, 3.0]),
    "adversarial": jnp.asarray([0.25, 0.5, 0.75], jnp.bfloat16),
    "style": jnp.asarray(7.0),
  }
  weights = {"reconstruction": 0.999, "adversarial": 0.001, "style": 0, "unused": 0.0}
  total, named = jax.jit(lambda terms: losses.combine(terms, weights))(terms)
  assert (total.shape, total.dtype) == ((), jnp.float32)
  np.testing.assert_allclose(total, 0.999 * 2 + 0.001 * 0.5, rtol=1e-6)
  assert named == {
    "loss/reconstruction": 2,
    "loss/adversarial": 0.5,
    "loss/style": 7,
  }
  assert {x.dtype for x in named.values()} == {jnp.dtype("float32")}
  grads = jax.grad(lambda terms: losses.combine(terms, weights)[0])(terms)
  np.testing.assert_allclose(grads["reconstruction"], [0.4995, 0.4995])
  assert grads["style"] == 0


def test_combine_of_nothing():
  total, named = losses.combine({}, {"reconstruction": 0.0})
  assert (total, total.dtype) == (0, jnp.float32)
  assert named == {}


def test_combine_shows_what_is_not_finite():
  total, _ = losses.combine({"a": jnp.asarray([1.0, np.nan])}, {"a": 0.0})
  assert np.isnan(total)


def test_combine_refuses_terms_and_weights_that_do_not_match():
  terms = {"style": jnp.zeros(2), "reconstruction": jnp.zeros(2)}
  with pytest.raises(ValueError, match=r"without a weight: \['style'\]"):
    losses.combine(terms, {"reconstruction": 1.0})
  weights = {"style": 1.0, "reconstruction": 1.0, "adversarial": 0.001}
  with pytest.raises(ValueError, match=r"without a term: \['adversarial'\]"):
    losses.combine(terms, weights)
