"""Conversions of pixels between bytes, [0, 1] and the networks' values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder import pixels

NORMALIZATIONS = ("symmetric", "unit", "minmax")


def batch(seed=0):
  """Images in [0, 1] of different ranges, and masks of holes."""
  draw = np.random.default_rng(seed)
  low, high = np.asarray([[0, 0.2, 0.5], [1, 0.9, 0.6]])[..., None, None, None]
  images = low + (high - low) * draw.random((3, 6, 7, 3))
  mask = (draw.random((3, 6, 7, 1)) < 0.4).astype(np.float32)
  return images.astype(np.float32), mask


def test_bytes_survive_the_round_trip():
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  values = pixels.from_uint8(levels)
  assert values.dtype == jnp.float32
  np.testing.assert_allclose(values, levels / 255.0, rtol=1e-7)
  assert (values.min(), values.max()) == (0, 1)
  back = pixels.to_uint8(values)
  assert back.dtype == jnp.uint8
  np.testing.assert_array_equal(back, levels)


def test_bytes_are_rounded_and_clipped():
  values = np.asarray([-3, -0.001, 0.49, 0.51, 254.4, 254.6, 255.4, 400]) / 255
  expected = [0, 0, 0, 1, 254, 255, 255, 255]
  np.testing.assert_array_equal(pixels.to_uint8(jnp.asarray(values)), expected)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_round_trip(normalization):
  images, mask = batch()
  mask[:, 0, 0] = 0  # minmax needs a known pixel
  scale = pixels.scale_of(images, mask, normalization)
  back = scale.restore(scale.normalize(images))
  if normalization != "minmax":  # pixels of the hole may be outside the known range
    np.testing.assert_allclose(back, images, atol=1e-6)
  known = np.broadcast_to(mask == 0, images.shape)
  np.testing.assert_allclose(back[known], images[known], atol=1e-6)


@pytest.mark.parametrize(
  ("normalization", "expected"),
  [
    ("symmetric", lambda levels: levels / 127.5 - 1),
    ("unit", lambda levels: levels / 255),
  ],
)
def test_symmetric_and_unit_by_their_formulas(normalization, expected):
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  images = pixels.from_uint8(levels)
  scale = pixels.scale_of(images, jnp.zeros_like(images), normalization)
  normalized = scale.normalize(images)
  np.testing.assert_allclose(normalized, expected(levels.astype(float)), atol=1e-6)
  assert normalized.dtype == jnp.float32


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_bytes_survive_normalisation(normalization):
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  images = pixels.from_uint8(levels)
  scale = pixels.scale_of(images, jnp.zeros_like(images), normalization)
  back = pixels.to_uint8(scale.restore(scale.normalize(images)))
  np.testing.assert_array_equal(back, levels)


def test_minmax_maps_the_known_pixels_of_each_image_to_minus_one_to_one():
  images, mask = batch()
  normalized = pixels.scale_of(images, mask, "minmax").normalize(images)
  for i in range(3):
    known = np.asarray(normalized[i])[mask[i, ..., 0] == 0]
    np.testing.assert_allclose([known.min(), known.max()], [-1, 1], atol=1e-5)
    inside = images[i][mask[i, ..., 0] == 0].astype(float)
    expected = 2 * (inside - inside.min()) / (inside.max() - inside.min()) - 1
    np.testing.assert_allclose(known, expected, atol=1e-5)


def test_minmax_does_not_depend_on_the_hole():
  images, mask = batch()
  scale = pixels.scale_of(images, mask, "minmax")
  for hidden in (0.0, 1.0, np.nan):
    other = pixels.scale_of(np.where(mask > 0, hidden, images), mask, "minmax")
    np.testing.assert_array_equal(scale.offset, other.offset)
    np.testing.assert_array_equal(scale.factor, other.factor)


def test_minmax_of_one_colour():
  images = jnp.full((1, 4, 4, 3), 0.25)
  scale = pixels.scale_of(images, jnp.zeros((1, 4, 4, 1)), "minmax")
  normalized = scale.normalize(images)
  assert np.isfinite(normalized).all()
  np.testing.assert_allclose(scale.restore(normalized), images, atol=1e-6)


def test_minmax_without_a_known_pixel_has_the_full_range():
  images = jnp.full((1, 4, 4, 3), 0.25)
  scale = pixels.scale_of(images, jnp.ones((1, 4, 4, 1)), "minmax")
  assert (scale.offset, scale.factor) == (0.5, 0.5)


def test_restored_images_are_clipped():
  for normalization in NORMALIZATIONS:
    images, mask = batch()
    scale = pixels.scale_of(images, mask, normalization)
    assert scale.restore(jnp.full_like(images, 50)).max() == 1
    assert scale.restore(jnp.full_like(images, -50)).min() == 0


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_scales_are_traceable(normalization):
  images, mask = batch()

  @jax.jit
  def normalized(images, mask):
    return pixels.scale_of(images, mask, normalization).normalize(images)

  expected = pixels.scale_of(images, mask, normalization).normalize(images)
  np.testing.assert_allclose(normalized(images, mask), expected, atol=1e-5)


def test_unknown_normalization():
  images, mask = batch()
  with pytest.raises(ValueError, match="symmetric, unit or minmax, not 'imagenet'"):
    pixels.scale_of(images, mask, "imagenet")


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(
  ("old", "new"), [(192, 128), (12, 8), (7, 12), (12, 5), (128, 14), (2, 4), (8, 8)]
)
def test_resizing_elsewhere_equals_jaxs(old, new, antialias):
  rng = np.random.default_rng(0)
  x, g = (rng.normal(size=(2, side, 6, 3)).astype(np.float32) for side in (old, new))
  g = np.concatenate([g, g[:, :, :2]], axis=2)

  def stock(x):
    return jax.image.resize(x, g.shape, "linear", antialias=antialias)

  def batches(x):
    return pixels._by_batches(x, g.shape, antialias)

  @jax.jit
  def both(x, g):
    return [(y, *pull(g)) for y, pull in (jax.vjp(f, x) for f in (batches, stock))]

  # jax.image.resize computes the places in float32: 5e-6 of a pixel at 12 to 5.
  for found, expected in zip(*both(x, g), strict=True):
    np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_resizing_is_in_batches_on_accelerators(platform):
  def loss(x):
    return jnp.square(pixels.resize(x, (2, 8, 8, 3))).sum()

  traced = jax.jit(jax.grad(loss)).trace(jnp.zeros((2, 12, 12, 3)))
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert text.count("dot_general") == 4
  assert text.count("batching_dims = [0] x [0]") == (0 if platform == "cpu" else 4)
