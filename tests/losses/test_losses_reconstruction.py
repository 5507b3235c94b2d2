"""Masked losses against NumPy in float64 and Optax: values, gradients, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from ctx_encoder import losses, morphology

SHAPE = (5, 6, 8, 3)

# Penalty and slope of each loss.
REFERENCES = {
  losses.masked_l2: (np.square, lambda error: 2 * error),
  losses.masked_l1: (np.abs, np.sign),
  losses.masked_huber: (
    lambda error: np.asarray(optax.losses.huber_loss(jnp.asarray(error)), float),
    lambda error: np.clip(error, -1, 1),
  ),
  losses.masked_charbonnier: (
    lambda error: np.hypot(error, 1e-3),
    lambda error: error / np.hypot(error, 1e-3),
  ),
}
masked = pytest.mark.parametrize("loss", list(REFERENCES))
per_what = pytest.mark.parametrize("per", ["hole", "image", "sum"])


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
    scale = 1 if per == "sum" else 1 / (max(pixels, 1) * predictions.shape[-1])
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


@masked
def test_errors_of_single_pixels(loss):
  predictions, targets, mask, weights = batch()
  found = loss(predictions, targets, mask, per="none", weights=weights)
  error = np.asarray(predictions, float) - np.asarray(targets, float)
  expected = np.asarray(mask * weights) * REFERENCES[loss][0](error)
  assert (found.shape, found.dtype) == (SHAPE, jnp.float32)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@per_what
def test_masked_l2_by_finite_differences(per):
  predictions, targets, mask, weights = batch(shape=(3, 3, 4, 2))
  loss = functools.partial(losses.masked_l2, mask=mask, per=per, weights=weights)
  check_grads(loss, (predictions, targets), order=1, modes=["rev"], rtol=2e-2)


@pytest.mark.parametrize("loss", [losses.masked_l1, losses.masked_l2])
def test_by_hand(loss):
  ones, zeros = jnp.ones((1, 2, 4, 3)), jnp.zeros((1, 2, 4, 3))
  mask = jnp.zeros((1, 2, 4, 1)).at[0, 0, :2].set(1)
  assert loss(ones, zeros, mask) == 1
  assert loss(ones, zeros, mask, per="image") == 0.25
  assert loss(ones, zeros, mask, per="sum") == 6
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
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("hole", [True, False])
def test_not_finite_predictions_give_not_finite_losses(loss, bad, hole):
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
def test_per_is_one_of_three(loss):
  with pytest.raises(
    ValueError, match="per must be one of hole, image, sum, not 'pixel"
  ):
    loss(*batch()[:3], per="pixel")


@pytest.mark.parametrize("delta", [0.01, 0.3, 5.0])
def test_huber_is_optaxs_at_any_delta(delta):
  predictions, targets, mask, _ = batch()
  # Optax takes a difference of near equals, which costs digits at a small delta.
  error = optax.losses.huber_loss(predictions, targets, delta=delta)
  expected = np.asarray(error * mask, float).sum(axis=(1, 2, 3))
  value = losses.masked_huber(predictions, targets, mask, delta=delta, per="sum")
  np.testing.assert_allclose(value, expected, rtol=1e-4)


@pytest.mark.parametrize(
  ("loss", "options"),
  [
    (losses.masked_huber, {"delta": 0.0}),
    (losses.masked_charbonnier, {"epsilon": -1.0}),
    (losses.masked_huber, {"delta": float("nan")}),
  ],
)
def test_thresholds_are_above_zero(loss, options):
  with pytest.raises(ValueError, match="must be above 0, not"):
    loss(*batch()[:3], **options)


@masked
def test_an_exact_prediction_has_the_gradient_0(loss):
  images, _, mask, _ = batch()
  slope = jax.grad(lambda x: loss(x, images, mask).sum())(images)
  np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("value", [0.5, 2.0, 255.0, -1.0, np.nan])
def test_masks_other_than_0_and_1_are_refused_where_they_are_known(value):
  predictions, targets, mask, _ = batch()
  wrong = mask.at[2, 3, 4].set(value)
  for loss in REFERENCES:
    with pytest.raises(ValueError, match=r"1 in the hole and 0 elsewhere; it has"):
      loss(predictions, targets, wrong)
    with pytest.raises(ValueError, match=r"1 in the hole and 0 elsewhere; it has"):
      jax.jit(lambda p, t, loss=loss: loss(p, t, wrong))(predictions, targets)
    jax.eval_shape(loss, predictions, targets, wrong)  # unknown while tracing


def test_a_gray_image_in_place_of_the_mask_is_refused():
  images, targets, mask, _ = batch(shape=(2, 4, 4, 1))
  with pytest.raises(ValueError, match="1 in the hole"):
    losses.masked_l2(mask, images, targets)


@masked
def test_split_is_the_hole_and_the_known_pixels(loss):
  predictions, targets, mask, _ = batch()
  terms = losses.split(loss, predictions, targets, mask, per="sum")
  whole = loss(predictions, targets, jnp.ones_like(mask), per="sum")
  np.testing.assert_allclose(terms["hole"] + terms["valid"], whole, rtol=1e-5)
  np.testing.assert_allclose(
    terms["hole"], loss(predictions, targets, mask, per="sum"), rtol=1e-6
  )
  assert set(terms) == {"hole", "valid"}


def squares(size=12):
  """A central hole, one at the border, a full and an empty one."""
  mask = np.zeros((4, size, size + 3, 1), np.float32)
  mask[0, 3:9, 4:9] = 1
  mask[1, :5, :4] = 1
  mask[2] = 1
  return mask


def test_overlap_weights_are_a_ring():
  mask = squares()
  region, weights = losses.overlap_weights(jnp.asarray(mask), 2, 10.0)
  for i, hole in enumerate(mask[..., 0] > 0):
    wide = ndimage.binary_dilation(hole, np.ones((5, 5)))
    np.testing.assert_array_equal(region[i, ..., 0], wide)
    np.testing.assert_array_equal(weights[i, ..., 0], hole + 10.0 * (wide & ~hole))


def test_discounted_weights_fall_with_scipys_distance():
  mask = squares()
  weights = np.asarray(losses.discounted_weights(jnp.asarray(mask), 0.9))
  for i in (0, 1, 3):
    distance = ndimage.distance_transform_edt(mask[i, ..., 0])
    np.testing.assert_allclose(weights[i, ..., 0], 0.9**distance, rtol=1e-5)
  np.testing.assert_array_equal(weights[2], 1)  # no known pixel
  assert weights[0, 5, 6, 0] < weights[0, 3, 6, 0] < 1


def test_distances_of_random_masks_are_scipys():
  masks = (np.random.default_rng(0).random((6, 17, 23, 1)) < 0.9).astype(np.float32)
  masks[0, :, :12] = 1
  found = np.asarray(jax.jit(morphology.distance_to_known)(masks))[..., 0]
  expected = [ndimage.distance_transform_edt(mask[..., 0]) for mask in masks]
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  one = morphology.distance_to_known(jnp.asarray(masks[1]))[..., 0]
  np.testing.assert_allclose(one, expected[1], rtol=1e-6)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda m: losses.overlap_weights(m[0]), r"\[B, H, W, 1\], not \(12, 15, 1\)"),
    (lambda m: losses.overlap_weights(m + 0.5), "1 in the hole"),
    (lambda m: losses.overlap_weights(m, -1), "0 or more, not -1"),
    (lambda m: losses.discounted_weights(m, 0.0), r"in \(0, 1\], not 0"),
    (lambda m: losses.discounted_weights(m, 1.5), r"in \(0, 1\], not 1.5"),
  ],
)
def test_invalid_arguments_of_weights_are_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.asarray(squares()))
