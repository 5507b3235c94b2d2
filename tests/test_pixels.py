"""Pixels from bytes to what the networks see and back."""

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


def test_every_byte_comes_back():
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  values = pixels.from_uint8(levels)
  assert values.dtype == jnp.float32
  np.testing.assert_allclose(values, levels / 255.0, rtol=1e-7)
  assert (values.min(), values.max()) == (0, 1)
  back = pixels.to_uint8(values)
  assert back.dtype == jnp.uint8
  np.testing.assert_array_equal(back, levels)


def test_bytes_are_the_nearest_and_are_cut_off():
  values = np.asarray([-3, -0.001, 0.49, 0.51, 254.4, 254.6, 255.4, 400]) / 255
  expected = [0, 0, 0, 1, 254, 255, 255, 255]
  np.testing.assert_array_equal(pixels.to_uint8(jnp.asarray(values)), expected)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_round_trip(normalization):
  images, mask = batch()
  mask[:, 0, 0] = 0  # minmax knows no range of a picture that is all hole
  scale = pixels.scale_of(images, mask, normalization)
  back = scale.restore(scale.normalize(images))
  if normalization != "minmax":  # pixels of the hole may lie beyond the known range
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
def test_by_the_formula_of_the_configuration(normalization, expected):
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  images = pixels.from_uint8(levels)
  scale = pixels.scale_of(images, jnp.zeros_like(images), normalization)
  normalized = scale.normalize(images)
  np.testing.assert_allclose(normalized, expected(levels.astype(float)), atol=1e-6)
  assert normalized.dtype == jnp.float32


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_byte_comes_back_from_the_networks(normalization):
  levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
  images = pixels.from_uint8(levels)
  scale = pixels.scale_of(images, jnp.zeros_like(images), normalization)
  back = pixels.to_uint8(scale.restore(scale.normalize(images)))
  np.testing.assert_array_equal(back, levels)


def test_minmax_puts_each_image_s_known_pixels_on_minus_one_to_one():
  images, mask = batch()
  normalized = pixels.scale_of(images, mask, "minmax").normalize(images)
  for i in range(3):
    known = np.asarray(normalized[i])[mask[i, ..., 0] == 0]
    np.testing.assert_allclose([known.min(), known.max()], [-1, 1], atol=1e-5)
    inside = images[i][mask[i, ..., 0] == 0].astype(float)
    expected = 2 * (inside - inside.min()) / (inside.max() - inside.min()) - 1
    np.testing.assert_allclose(known, expected, atol=1e-5)


def test_minmax_sees_nothing_of_the_hole():
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


def test_minmax_of_no_known_pixel_is_the_whole_range():
  images = jnp.full((1, 4, 4, 3), 0.25)
  scale = pixels.scale_of(images, jnp.ones((1, 4, 4, 1)), "minmax")
  assert (scale.offset, scale.factor) == (0.5, 0.5)


def test_restored_images_are_cut_off():
  for normalization in NORMALIZATIONS:
    images, mask = batch()
    scale = pixels.scale_of(images, mask, normalization)
    assert scale.restore(jnp.full_like(images, 50)).max() == 1
    assert scale.restore(jnp.full_like(images, -50)).min() == 0


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_scales_go_through_jit(normalization):
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
