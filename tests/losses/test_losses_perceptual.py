"""Losses on features and smoothness losses, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from ctx_encoder import losses


def squared_matching(*features, **options):
  return losses.feature_matching(*features, squared=True, **options)


ON_FEATURES = (
  losses.style_loss,
  losses.content_loss,
  losses.feature_matching,
  squared_matching,
  losses.contextual_loss,
)
on_features = pytest.mark.parametrize("loss", ON_FEATURES)


def features(seed=0, batch=2, dtype=np.float32):
  draw = np.random.default_rng(seed)
  shapes = {"one": (batch, 6, 5, 4), "two": (batch, 3, 2, 7)}
  return {k: jnp.asarray(draw.normal(size=s), dtype) for k, s in shapes.items()}


def oracle(loss, outputs, targets, weights):
  total = 0.0
  for name, weight in weights.items():
    a, b = (np.asarray(x[name], float) for x in (outputs, targets))
    if loss is losses.style_loss:
      _, h, w, c = a.shape
      gram = lambda x: np.einsum("bhwi,bhwj->bij", x, x)  # noqa: E731
      distance = ((gram(b) - gram(a)) ** 2).sum((1, 2)) / (2 * c * h * w) ** 2
    elif loss is losses.contextual_loss:
      distance = np.array([contextual_oracle(*pair) for pair in zip(a, b, strict=True)])
    elif loss in (losses.content_loss, squared_matching):
      distance = ((a - b) ** 2).mean((1, 2, 3))
    else:
      distance = abs(a - b).mean((1, 2, 3))
    total = total + weight * distance
  return total


def contextual_oracle(ours, theirs, bandwidth=0.5):
  """The loss of one image, position by position."""
  ours, theirs = (x.reshape(-1, x.shape[-1]) for x in (ours, theirs))
  mean = theirs.mean(0)
  rows = []
  for x in ours - mean:
    apart = [
      1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y) if (x != y).any() else 0
      for y in theirs - mean
    ]
    weights = np.exp((1 - np.array(apart) / (min(apart) + 1e-5)) / bandwidth)
    rows.append(weights / weights.sum())
  return -np.log(np.max(rows, axis=0).mean())


@on_features
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("weights", [None, {"one": 2.0, "two": 0.5}, {"two": 3.0}])
def test_values(loss, dtype, weights):
  outputs, targets = features(0, dtype=dtype), features(1, dtype=dtype)
  expected = oracle(loss, outputs, targets, weights or {"one": 0.5, "two": 0.5})
  value = loss(outputs, targets, weights=weights)
  assert (value.shape, value.dtype) == ((2,), jnp.float32)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  same = loss(outputs, outputs, weights=weights)
  np.testing.assert_allclose(same, 0, atol=1e-6 * (loss is losses.contextual_loss))


@on_features
def test_gradients(loss):
  outputs, targets = features(0), features(1)
  check_grads(jax.jit(loss), (outputs, targets), order=1, modes=["rev"], rtol=3e-2)


def test_gram_matrix():
  (x, _) = features().values()
  exact = np.asarray(x, float).reshape(2, 30, 4)
  np.testing.assert_allclose(
    losses.gram_matrix(x), exact.transpose(0, 2, 1) @ exact, rtol=1e-5
  )
  large = jnp.full((1, 64, 64, 2), 200.0, jnp.float16)
  np.testing.assert_array_equal(losses.gram_matrix(large), 64 * 64 * 200.0**2)
  with pytest.raises(ValueError, match=r"\[B, h, w, C\], not \(6, 5, 4\)"):
    losses.gram_matrix(x[0])


def test_style_depends_on_neither_position_nor_size():
  x = features()["one"]
  shuffled = jnp.roll(x[:, ::-1], 2, axis=2)
  np.testing.assert_allclose(
    losses.style_loss({"a": x}, {"a": shuffled}), 0, atol=1e-12
  )
  twice = jnp.concatenate([x, x], axis=1)
  np.testing.assert_allclose(losses.style_loss({"a": x}, {"a": twice}), 0, atol=1e-12)
  same = losses.contextual_loss({"a": x}, {"a": shuffled})
  np.testing.assert_allclose(same, 0, atol=1e-6)
  assert losses.content_loss({"a": x}, {"a": shuffled}).min() > 0


def test_the_contextual_loss_has_a_bandwidth_and_finite_gradients():
  outputs, targets = features(0), features(1)
  found = losses.contextual_loss(outputs, targets, bandwidth=0.1, weights={"one": 1})
  pairs = zip(outputs["one"], targets["one"], strict=True)
  expected = [
    contextual_oracle(*(np.asarray(x, float) for x in pair), 0.1) for pair in pairs
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  slope = jax.jit(jax.grad(lambda x: losses.contextual_loss(x, targets).sum()))
  flat = jax.tree.map(jnp.ones_like, targets)
  for case in (targets, flat):
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope(case)))
  with pytest.raises(ValueError, match="bandwidth must be above 0, not 0"):
    losses.contextual_loss(outputs, targets, bandwidth=0)


@pytest.mark.parametrize(
  "loss", [losses.style_loss, losses.content_loss, losses.contextual_loss]
)
def test_features_may_be_a_function_of_images(loss):
  draw = np.random.default_rng(0)
  images = jnp.asarray(draw.random((2, 3, 6, 8, 3)), jnp.float32)

  def extract(x):
    return {"edges": x[:, 1:] - x[:, :-1], "pixels": x}

  expected = loss(extract(images[0]), extract(images[1]))
  np.testing.assert_allclose(loss(*images, features=extract), expected)
  with pytest.raises(ValueError, match="one shape"):
    loss(images[0], images[1][:, :4], features=extract)
  with pytest.raises(ValueError, match="pass `features=`"):
    loss(*images)


@on_features
def test_layers_and_weights_that_do_not_match_are_refused(loss):
  outputs, targets = features(0), features(1)
  with pytest.raises(ValueError, match=r"same layers.*\['one', 'two'\] and \['one'\]"):
    loss(outputs, {"one": targets["one"]})
  with pytest.raises(ValueError, match=r"layer 'one' must have one shape"):
    loss(outputs, targets | {"one": targets["one"][..., :3]})
  with pytest.raises(ValueError, match=r"layers among \['one', 'two'\].*not {'three'"):
    loss(outputs, targets, weights={"three": 1.0})
  with pytest.raises(ValueError, match="at least one of them above 0"):
    loss(outputs, targets, weights={"one": 0.0})
  with pytest.raises(ValueError, match="at least one"):
    loss({}, {})


def test_layers_may_be_a_sequence():
  outputs, targets = features(0), features(1)
  for loss in ON_FEATURES:
    for make in (list, tuple):
      found = loss(make(outputs.values()), make(targets.values()), weights={1: 2.0})
      np.testing.assert_array_equal(found, loss(outputs, targets, weights={"two": 2.0}))
    with pytest.raises(ValueError, match=r"same layers.*\[0, 1\] and \[0\]"):
      loss(list(outputs.values()), [targets["one"]])


def test_feature_matching_with_a_mask_is_of_known_positions():
  """Bilinear resizing by 1/2 averages 2x2 pixels, by 1/4 the inner 2x2 of 4x4."""
  draw = np.random.default_rng(0)
  shapes = {"full": (2, 8, 12, 2), "half": (2, 4, 6, 3), "quarter": (2, 2, 3, 5)}
  outputs, targets = (
    {name: jnp.asarray(draw.normal(size=s), jnp.float32) for name, s in shapes.items()}
    for _ in range(2)
  )
  mask = (draw.random((2, 8, 12, 1)) < 0.5).astype(float)
  blocks = mask.reshape(2, 2, 4, 3, 4, 1)[:, :, 1:3, :, 1:3]
  resized = {
    "full": mask,
    "half": mask.reshape(2, 4, 2, 6, 2, 1).mean((2, 4)),
    "quarter": blocks.mean((2, 4)),
  }
  expected = np.mean(
    [
      (
        (1 - resized[name]) * abs(np.asarray(outputs[name], float) - targets[name])
      ).mean((1, 2, 3))
      for name in shapes
    ],
    axis=0,
  )
  found = losses.feature_matching(outputs, targets, mask=jnp.asarray(mask))
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  nothing = losses.feature_matching(outputs, targets, mask=jnp.ones_like(mask))
  np.testing.assert_array_equal(nothing, 0)
  everything = losses.feature_matching(outputs, targets, mask=jnp.zeros_like(mask))
  np.testing.assert_array_equal(everything, losses.feature_matching(outputs, targets))
  slope = jax.jit(
    jax.grad(lambda x: losses.feature_matching(x, targets, mask=mask).sum())
  )
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope(targets)))
  known = np.broadcast_to(mask == 0, shapes["full"])
  np.testing.assert_array_equal(slope(outputs)["full"] != 0, known)
  with pytest.raises(ValueError, match=r"mask must be \[B, H, W, 1\]"):
    losses.feature_matching(outputs, targets, mask=jnp.asarray(mask[:1]))


# Smoothness and edges


def smoothness_batch(dtype=np.float32):
  draw = np.random.default_rng(3)
  images, targets = draw.uniform(-1, 1, (2, 4, 7, 9, 3))
  mask = np.zeros((4, 7, 9, 1))
  mask[0, 2:5, 3:7] = 1
  mask[1, :2, :] = 1
  mask[2] = 1
  return [jnp.asarray(x, dtype) for x in (images, targets, mask)]


def neighbours(mask):
  height, width = mask.shape[:2]
  for y in range(height):
    for x in range(width):
      if y + 1 < height:
        yield (y, x), (y + 1, x)
      if x + 1 < width:
        yield (y, x), (y, x + 1)


def smoothness_oracle(images, mask, pairs):
  """Sum of differences between the neighbours that `pairs` accepts; their number."""
  total, count = 0.0, 0
  for here, there in neighbours(mask):
    if pairs(here, there):
      total += abs(images[there] - images[here]).sum()
      count += 1
  return total, count


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("per", ["hole", "image", "sum"])
def test_total_variation(dtype, per):
  images, _, mask = smoothness_batch(dtype)
  found = losses.total_variation(images, mask, per=per)
  for i, image in enumerate(np.asarray(images, float)):
    hole = np.asarray(mask[i, ..., 0]) > 0
    near = {
      (y, x)
      for y, x in np.ndindex(hole.shape)
      if hole[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].any()
    }
    total, _ = smoothness_oracle(
      image, hole, lambda *pair, near=near: near.issuperset(pair)
    )
    pixels = {"hole": max(hole.sum(), 1), "image": hole.size, "sum": 1 / 3}[per]
    np.testing.assert_allclose(found[i], total / (3 * pixels), rtol=1e-5)
  assert found[3] == 0


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_seam(dtype):
  images, targets, mask = smoothness_batch(dtype)
  found = losses.seam_loss(images, targets, mask)
  for i in range(len(mask)):
    error = np.asarray(images[i], float) - np.asarray(targets[i], float)
    hole = np.asarray(mask[i, ..., 0]) > 0
    total, count = smoothness_oracle(
      error, hole, lambda here, there, hole=hole: hole[here] != hole[there]
    )
    np.testing.assert_allclose(found[i], total / max(3 * count, 1), rtol=1e-5)
  assert count == 0


@pytest.mark.parametrize("per", ["hole", "image", "sum"])
def test_edges(per):
  images, targets, mask = smoothness_batch()
  found = losses.edge_loss(images, targets, mask, per=per)
  for i in range(len(mask)):
    error = np.asarray(images[i], float) - np.asarray(targets[i], float)
    slopes = sum(
      abs(ndimage.sobel(channel, axis, mode="nearest")) / 8
      for channel in np.moveaxis(error, 2, 0)
      for axis in (0, 1)
    )
    count = {"hole": max(mask[i].sum(), 1), "image": mask[i].size, "sum": 1 / 3}[per]
    total = (np.asarray(mask[i, ..., 0]) * slopes).sum()
    np.testing.assert_allclose(found[i], total / (6 * count), rtol=1e-5)
  assert found[3] == 0
  shifted = losses.edge_loss(targets + 0.25, targets, mask)
  np.testing.assert_allclose(shifted, 0, atol=1e-6)


def test_the_seam_loss_is_of_the_error_and_not_of_the_image():
  _, targets, mask = smoothness_batch()
  np.testing.assert_array_equal(losses.seam_loss(targets, targets, mask), 0)
  shifted = targets + 0.25 * mask
  np.testing.assert_allclose(
    losses.seam_loss(shifted, targets, mask), [0.25, 0.25, 0, 0], rtol=1e-5
  )
  everywhere = losses.seam_loss(targets + 0.25, targets, mask)
  np.testing.assert_allclose(everywhere, 0, atol=1e-6)


@pytest.mark.parametrize(
  "loss",
  [
    lambda images, targets, mask: losses.total_variation(images, mask),
    losses.seam_loss,
    losses.edge_loss,
  ],
)
def test_gradients_of_smoothness_and_wrong_masks(loss):
  images, targets, mask = smoothness_batch()
  compiled = jax.jit(lambda x: loss(x, targets, mask))
  check_grads(compiled, (images,), 1, ["rev"], rtol=3e-2)
  assert np.isnan(compiled(images.at[1, 0, 0, 0].set(np.nan))[1])
  with pytest.raises(ValueError, match="1 in the hole"):
    loss(images, targets, mask + 0.5)
  with pytest.raises(ValueError, match=r"mask must be \[B, H, W, 1\]"):
    loss(images, targets, mask[:1])


def test_total_variation_refuses_another_divisor():
  images, _, mask = smoothness_batch()
  with pytest.raises(ValueError, match="hole, image, sum, not 'pixel'"):
    losses.total_variation(images, mask, per="pixel")
