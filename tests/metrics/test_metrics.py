"""Pixelwise metrics against scikit-image in float64; regions; the cap of PSNR."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

from ctx_encoder import augment, masks, metrics

SHAPE = (4, 9, 12, 3)
MEASURES = (metrics.l1, metrics.l2, metrics.psnr)


def batch(seed=0):
  """Completions, targets and masks; the last two masks are all and nothing."""
  draw = np.random.default_rng(seed)
  completed, targets = draw.random((2, *SHAPE), np.float32)
  mask = (draw.random((*SHAPE[:3], 1)) < 0.3).astype(np.float32)
  mask[-2], mask[-1] = 1, 0
  return completed, targets, mask


def oracle(completed, targets, region):
  """L1, L2 and PSNR of the pixels of one image's region, by scikit-image."""
  inside = region[..., 0] > 0
  if not inside.any():
    return {"l1": 0.0, "l2": 0.0, "psnr": metrics.PSNR_CAP}
  x, y = completed[inside].astype(float), targets[inside].astype(float)
  return {
    "l1": np.abs(x - y).mean(),
    "l2": mean_squared_error(x, y),
    "psnr": peak_signal_noise_ratio(y, x, data_range=1),
  }


def test_by_region_is_what_scikit_image_measures():
  completed, targets, mask = batch()
  patch = np.zeros_like(mask)
  patch[:, 2:6, 3:9] = 1
  regions = {"hole": mask, "image": np.ones_like(mask), "patch": patch}
  measured = jax.jit(metrics.by_region)(completed, targets, mask)
  assert set(measured) == {f"{m}_{r}" for m in ("l1", "l2", "psnr") for r in regions}
  for name, region in regions.items():
    rows = list(map(oracle, completed, targets, region))
    for measure in ("l1", "l2", "psnr"):
      values = measured[f"{measure}_{name}"]
      assert values.dtype == jnp.float32
      np.testing.assert_allclose(values, [row[measure] for row in rows], rtol=1e-5)


def test_psnr_by_hand():
  targets = jnp.zeros((3, 4, 4, 3))
  completed = targets + jnp.asarray([1.0, 0.1, 0.01])[:, None, None, None]
  psnr = metrics.psnr(completed, targets, jnp.ones((3, 4, 4, 1)))
  np.testing.assert_allclose(psnr, [0, 20, 40], atol=1e-4)


def test_psnr_is_capped():
  _, targets, mask = batch()
  exact = metrics.psnr(targets, targets, mask)
  np.testing.assert_allclose(exact, [100] * 4, rtol=1e-6)
  nearly = metrics.psnr(targets + 1e-7, targets, np.ones_like(mask))
  np.testing.assert_allclose(nearly, [100] * 4, rtol=1e-6)
  nothing = metrics.psnr(1 - targets, targets, np.zeros_like(mask))
  np.testing.assert_allclose(nothing, [100] * 4, rtol=1e-6)


def test_nan_gives_nan():
  completed, targets, mask = batch()
  completed[0, *np.argwhere(mask[0, ..., 0] > 0)[0]] = np.nan
  for name, values in metrics.by_region(completed, targets, mask).items():
    if not name.endswith("patch"):
      assert np.isnan(values[0]), name
    assert np.isfinite(values[1:]).all()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 10, 127, 128, 130])
def test_center_patch_is_half_the_side_in_the_middle(size):
  patch = np.asarray(metrics.center_patch(jnp.zeros((2, size, size, 1))))
  assert patch.shape == (2, size, size, 1)
  assert set(np.unique(patch)) <= {0, 1}
  rows, columns = patch[1, ..., 0].any(axis=1), patch[1, ..., 0].any(axis=0)
  assert rows.sum() == columns.sum() == size // 2
  assert patch[1].sum() == (size // 2) ** 2
  places = np.flatnonzero(rows)
  if size > 1:
    before, after = places[0], size - 1 - places[-1]
    assert 0 <= after - before <= 1
  np.testing.assert_array_equal(patch[0], patch[1])


def test_center_patch_of_oblong_images():
  patch = metrics.center_patch(jnp.zeros((1, 8, 12, 1)))
  expected = np.zeros((1, 8, 12, 1))
  expected[:, 2:6, 3:9] = 1
  np.testing.assert_array_equal(patch, expected)


@pytest.mark.parametrize("size", [64, 128])
def test_center_patch_is_the_centre_hole_and_the_centre_crop(size):
  patch = metrics.center_patch(jnp.zeros((1, size, size, 1)))
  np.testing.assert_array_equal(patch[0], masks.center(size))
  assert augment.center_crop(patch, size // 2).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_wrong_regions_are_refused_while_tracing(measure):
  images = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
  for shape in (SHAPE, SHAPE[:3], (1, *SHAPE[1:3], 1)):
    region = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError, match="region must be") as error:
      jax.eval_shape(measure, images, images, region)
    assert f"not {shape} for {SHAPE}" in str(error.value)


@pytest.mark.parametrize("measure", MEASURES)
def test_images_of_two_shapes_are_refused(measure):
  images = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
  region = jax.ShapeDtypeStruct((*SHAPE[:3], 1), jnp.float32)
  for shape in ((*SHAPE[:3], 1), (1, *SHAPE[1:])):
    other = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError, match="must have one shape") as error:
      jax.eval_shape(measure, images, other, region)
    assert f"not {SHAPE} and {shape}" in str(error.value)


def test_half_precision_and_bytes_are_computed_in_float32():
  completed, targets, mask = batch()
  half = completed.astype(jnp.bfloat16)
  np.testing.assert_array_equal(
    metrics.l2(half, targets, mask),
    metrics.l2(half.astype(np.float32), targets, mask),
  )
  black, white = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
  assert (metrics.l1(black, white, np.ones_like(mask)) == 1).all()


@pytest.mark.parametrize("measure", MEASURES)
def test_regions_of_any_type_are_counted_exactly(measure):
  completed, targets, _ = (x.reshape(1, -1, 12, x.shape[-1]) for x in batch())
  region = np.arange(36 * 12).reshape(1, 36, 12, 1) < 301  # no number of bfloat16
  expected = measure(completed, targets, region.astype(np.float32))
  for dtype in (bool, jnp.bfloat16, np.int32):
    found = measure(completed, targets, jnp.asarray(region, dtype))
    np.testing.assert_array_equal(found, expected)
