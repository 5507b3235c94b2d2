"""Augmentation against SciPy, Pillow and scikit-image; flips and crops exactly."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage
from skimage import color, transform

from ctx_encoder import augment as augment_lib
from ctx_encoder.augment import center_crop, for_examples, make_augment, warp
from ctx_encoder.config import FIELDS, Augment

SIDE = 24


def picture(height=SIDE, width=SIDE, seed=0):
  """Returns a smooth float32 picture in [0, 1] without any symmetry."""
  noise = np.random.default_rng(seed).random((height, width, 3))
  smooth = ndimage.gaussian_filter(noise, (2, 2, 0), mode="nearest")
  low, high = smooth.min(), smooth.max()
  return ((smooth - low) / (high - low)).astype(np.float32)


def copies(image, count=64, seed=0, **strengths):
  """Returns `count` augmented copies of one image, `[count, S, S, 3]`."""
  augment = make_augment(**{"image_size": SIDE, **strengths})
  draw = jax.jit(functools.partial(for_examples, augment))
  images = jnp.broadcast_to(jnp.asarray(image), (count, *image.shape))
  return np.asarray(draw(jax.random.key(seed), jnp.arange(count), images))


class TestWarp:
  @pytest.mark.parametrize(
    "matrix",
    [
      [[1, 0, 0], [0, 1, 0]],
      [[0.9, 0.5, -7.3], [-0.4, 1.2, 3.7]],
      [[1, 0, -60.5], [0, 1, 75.25]],  # several reflections away
      [[0.5, 0, 1], [0, 0.25, 2]],
    ],
  )
  def test_is_scipys_affine_transform(self, matrix):
    image, matrix = picture(20, 31), np.float32(matrix)
    expected = np.stack(
      [
        ndimage.affine_transform(
          image[..., channel].astype(np.float64),
          matrix[:, :2],
          matrix[:, 2],
          (SIDE, SIDE),
          order=1,
          mode="mirror",
        )
        for channel in range(3)
      ],
      axis=-1,
    )
    result = np.asarray(warp(jnp.asarray(image), jnp.asarray(matrix), SIDE))
    assert result.shape == (SIDE, SIDE, 3)
    np.testing.assert_allclose(result, expected, atol=1e-5)

  @pytest.mark.parametrize("side", [SIDE, SIDE + 1])
  def test_quarter_turns_are_exact(self, side):
    image = picture(side, side)
    last = side - 1
    turns = {
      1: [[0, 1, 0], [-1, 0, last]],
      2: [[-1, 0, last], [0, -1, last]],
      3: [[0, -1, last], [1, 0, 0]],
    }
    for times, matrix in turns.items():
      result = warp(jnp.asarray(image), jnp.asarray(matrix, jnp.float32), side)
      np.testing.assert_array_equal(result, np.rot90(image, times))


def test_strengths_of_0_change_nothing():
  image = picture()
  np.testing.assert_array_equal(copies(image, 4), np.stack([image] * 4))


def test_strengths_of_0_trace_nothing():
  augment = make_augment(image_size=SIDE)
  traced = jax.make_jaxpr(augment)(jax.random.key(0), jnp.asarray(picture())).jaxpr
  assert traced.outvars[0] is traced.invars[1]


@pytest.mark.parametrize(
  ("name", "flipped"),
  [("flip_horizontal", np.fliplr), ("flip_vertical", np.flipud)],
)
def test_flips_are_exact_and_have_their_probability(name, flipped):
  image = picture()
  result = copies(image, 1000, **{name: 0.25})
  is_flipped = (result == flipped(image)).all((1, 2, 3))
  is_same = (result == image).all((1, 2, 3))
  assert (is_flipped ^ is_same).all()
  assert abs(is_flipped.mean() - 0.25) < 0.04
  assert (copies(image, **{name: 1.0}) == flipped(image)).all()


def test_the_two_flips_are_independent():
  image = picture()
  result = copies(image, 200, flip_horizontal=0.5, flip_vertical=0.5)
  kinds = [image, np.fliplr(image), np.flipud(image), np.rot90(image, 2)]
  counts = [(result == kind).all((1, 2, 3)).sum() for kind in kinds]
  assert sum(counts) == 200
  assert min(counts) > 25


def corners(image, result):
  """Returns the position of each crop in the image."""
  windows = np.lib.stride_tricks.sliding_window_view(image, result.shape[1:])[:, :, 0]
  found = []
  for one in result:
    matches = np.argwhere((windows == one).all((2, 3, 4)))
    assert len(matches) == 1
    found.append(matches[0])
  return np.array(found)


def test_larger_images_are_cropped_at_every_position():
  image = picture(SIDE + 3, SIDE + 5)
  found = corners(image, copies(image, 600))
  tops, lefts = np.unique(found[:, 0]), np.unique(found[:, 1])
  np.testing.assert_array_equal(tops, np.arange(4))
  np.testing.assert_array_equal(lefts, np.arange(6))
  counts = np.unique(found, axis=0, return_counts=True)[1]
  assert len(counts) == 24
  assert counts.min() > 8


def test_crop_shifts_by_whole_pixels_and_reflects():
  image = picture()
  padded = np.pad(image, ((6, 6), (6, 6), (0, 0)), mode="reflect")
  found = corners(padded, copies(image, 600, crop=0.25)) - 6
  for axis in (0, 1):
    assert found[:, axis].min() == -6
    assert found[:, axis].max() == 6
  assert abs(found.mean()) < 0.5


def test_crop_of_half_of_a_larger_image():
  image = picture(SIDE + 4, SIDE + 4)
  padded = np.pad(image, ((12, 12), (12, 12), (0, 0)), mode="reflect")
  found = corners(padded, copies(image, 300, crop=0.5)) - 12
  assert found.min() < -6
  assert found.max() > 10


def angle_of(result, image):
  """Returns the rotation that maps the image to the result, degrees."""
  angles = np.arange(-40, 40.1, 0.5)
  inner = np.s_[6:-6, 6:-6]
  errors = [
    np.abs(transform.rotate(image, angle, mode="reflect", order=1) - result)[
      inner
    ].mean()
    for angle in angles
  ]
  assert min(errors) < 0.01
  return angles[np.argmin(errors)]


def test_rotation_has_both_directions():
  """scikit-image's rotation by some angle within the bounds gives the same."""
  image = picture(seed=3)
  result = copies(image, 48, rotation=30)
  angles = np.array([angle_of(one, image) for one in result])
  assert -30.5 <= angles.min() < -18
  assert 18 < angles.max() <= 30.5
  assert (np.abs(angles) > 2).mean() > 0.8


def test_zoom_enlarges_about_the_middle():
  """The image's values are its coordinates."""
  y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1)
  image = np.stack([y, x, x], axis=-1).astype(np.float32)
  result = copies(image, 200, zoom=0.5)
  spread_y = result[:, -1, 0, 0] - result[:, 0, 0, 0]
  spread_x = result[:, 0, -1, 1] - result[:, 0, 0, 1]
  np.testing.assert_allclose(spread_y, spread_x, atol=1e-5)
  factors = 1 / spread_y
  assert 1 <= factors.min() < 1.05
  assert 1.45 < factors.max() <= 1.5 + 1e-4
  np.testing.assert_allclose(result.mean((1, 2)), 0.5, atol=1e-3)


def test_zoom_of_a_larger_image_keeps_its_pixels_size():
  y, x = np.mgrid[: 2 * SIDE, : 2 * SIDE] / (2 * SIDE)
  image = np.stack([y, x, x], axis=-1).astype(np.float32)
  result = copies(image, 64, zoom=1e-6)
  step = np.diff(result[..., 0], axis=1)
  np.testing.assert_allclose(step, 1 / (2 * SIDE), atol=1e-4)
  corner = result[:, 0, 0, :2]
  assert corner.min() < 0.1 * 0.5
  assert corner.max() > 0.9 * 0.5


def test_no_black_corners():
  bright = np.full((SIDE, SIDE, 3), 0.75, np.float32)
  result = copies(bright, 64, rotation=180, zoom=0.5, crop=0.5)
  np.testing.assert_allclose(result, 0.75, atol=1e-5)


def test_brightness_adds_and_subtracts():
  gray = np.full((SIDE, SIDE, 3), 0.5, np.float32)
  result = copies(gray, 200, brightness=0.2)
  assert (np.ptp(result, axis=(1, 2, 3)) < 1e-6).all()
  assert 0.3 <= result.min() < 0.32
  assert 0.68 < result.max() <= 0.7


def fitted(result, change, factors):
  """Returns the factor whose change gives each result, and the largest error."""
  candidates = np.stack([change(factor) for factor in factors])
  errors = np.abs(result[:, None] - candidates[None]).max((2, 3, 4))
  return factors[errors.argmin(1)], errors.min(1).max()


def test_contrast_keeps_each_channels_mean():
  image = 0.3 + 0.4 * picture()
  mean = image.mean((0, 1), keepdims=True)
  factors, error = fitted(
    copies(image, 64, contrast=0.3),
    lambda factor: mean + factor * (image - mean),
    np.linspace(0.7, 1.3, 601, dtype=np.float32),
  )
  assert error < 1e-3
  assert 0.7 <= factors.min() < 0.75
  assert 1.25 < factors.max() <= 1.3


def test_contrast_of_gray_is_pillows():
  """For gray images Pillow's mean is the channels' mean."""
  gray = (0.2 + 0.6 * picture()[..., :1]).repeat(3, axis=-1)
  pillow = ImageEnhance.Contrast(Image.fromarray(np.rint(255 * gray).astype(np.uint8)))
  _, error = fitted(
    copies(gray, 32, contrast=0.3),
    lambda factor: np.asarray(pillow.enhance(factor), np.float32) / 255,
    np.linspace(0.7, 1.3, 121),
  )
  assert error < 0.008  # two of Pillow's roundings


def in_hsv(image, change):
  hsv = color.rgb2hsv(image)
  return color.hsv2rgb(change(hsv)).astype(np.float32)


def test_saturation_is_hsv_saturation():
  image = picture()

  def change(factor):
    return in_hsv(image, lambda hsv: np.clip(hsv * [1, factor, 1], 0, 1))

  result = copies(image, 64, saturation=0.5)
  factors, error = fitted(result, change, np.linspace(0.5, 1.5, 501))
  assert error < 3e-3
  assert 0.5 <= factors.min() < 0.6
  assert 1.4 < factors.max() <= 1.5


def test_hue_changes_by_a_share_of_the_circle():
  image = picture()

  def change(turn):
    return in_hsv(image, lambda hsv: (hsv + np.array([turn, 0, 0])) % [1, 2, 2])

  result = copies(image, 64, hue=0.25)
  turns, error = fitted(result, change, np.linspace(-0.25, 0.25, 401))
  assert error < 6e-3
  assert -0.25 <= turns.min() < -0.2
  assert 0.2 < turns.max() <= 0.25


def test_all_operations_together_stay_in_range():
  everything = {
    "rotation": 180,
    "zoom": 1.0,
    "crop": 0.5,
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "brightness": 0.3,
    "contrast": 1.0,
    "saturation": 1.0,
    "hue": 0.5,
  }
  image = np.random.default_rng(0).random((SIDE + 5, SIDE + 5, 3)) > 0.5
  image = image.astype(np.float32)
  result = copies(image, 64, **everything)
  assert result.shape == (64, SIDE, SIDE, 3)
  assert result.dtype == np.float32
  assert np.isfinite(result).all()
  assert result.min() >= 0
  assert result.max() <= 1
  assert len(np.unique(result.reshape(64, -1), axis=0)) == 64


def test_one_key_one_result_at_any_batch_size():
  augment = make_augment(image_size=SIDE, rotation=20, crop=0.2, flip_horizontal=0.5)
  draw = jax.jit(functools.partial(for_examples, augment))
  images = jnp.stack([picture(seed=seed) for seed in range(6)])
  key = jax.random.key(7)
  whole = draw(key, jnp.arange(6), images)
  part = draw(key, jnp.array([4, 1]), images[jnp.array([4, 1])])
  np.testing.assert_allclose(part, whole[jnp.array([4, 1])], atol=1e-6)
  other = draw(jax.random.key(8), jnp.arange(6), images)
  assert (np.abs(other - whole).max((1, 2, 3)) > 0.05).all()


def test_enabling_one_operation_keeps_the_draws_of_the_others():
  image = picture()
  flips = copies(image, 32, flip_horizontal=0.5)
  both = copies(image, 32, flip_horizontal=0.5, zoom=1e-6)
  np.testing.assert_allclose(flips, both, atol=1e-4)


def test_the_compiled_step_has_one_resampling():
  augment = make_augment(image_size=SIDE, rotation=10, zoom=0.2, crop=0.1)
  traced = str(jax.make_jaxpr(augment)(jax.random.key(0), jnp.asarray(picture())))
  assert traced.count("gather[") == 4  # the four neighbours of each pixel


@pytest.mark.parametrize(
  ("shape", "size"), [((7, 9), 7), ((7, 9), 4), ((8, 8), 8), ((9, 7), 3)]
)
def test_center_crop_is_scipys_view_of_the_middle(shape, size):
  images = np.random.default_rng(0).random((2, *shape, 3), np.float32)
  result = np.asarray(center_crop(jnp.asarray(images), size))
  top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
  expected = images[:, top : top + size, left : left + size]
  np.testing.assert_array_equal(result, expected)
  np.testing.assert_array_equal(center_crop(jnp.asarray(images[0]), size), expected[0])


def test_too_small_images_are_refused():
  augment = make_augment(image_size=SIDE)
  with pytest.raises(ValueError, match=r"24x23 pixels are too small .* 24x24"):
    augment(jax.random.key(0), jnp.zeros((24, 23, 3)))
  with pytest.raises(ValueError, match="8x8 pixels are too small"):
    center_crop(jnp.zeros((2, 8, 8, 3)), 9)


@pytest.mark.parametrize(
  "strength",
  [
    {"rotation": 181},
    {"zoom": -0.1},
    {"crop": 0.6},
    {"hue": 0.51},
    {"flip_horizontal": 1.1},
    {"brightness": float("nan")},
    {"saturation": 2},
  ],
)
def test_strengths_out_of_range_are_refused(strength):
  name = next(iter(strength))
  with pytest.raises(ValueError, match=f"{name} must be within"):
    make_augment(image_size=SIDE, **strength)


def test_the_bounds_are_those_of_the_configuration():
  for name in vars(Augment()):
    field = FIELDS[f"augment.{name}"]
    make_augment(image_size=SIDE, **{name: field.low})
    make_augment(image_size=SIDE, **{name: field.high})
    with pytest.raises(ValueError, match=name):
      make_augment(image_size=SIDE, **{name: field.high * 1.01})


def test_the_draws_are_named_once():
  assert len(set(augment_lib._DRAWS)) == len(augment_lib._DRAWS)
