"""Grid energy: photographs, noise, made grids, and regions too small to measure."""

import functools

import grids
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ctx_encoder import metrics
from ctx_encoder.losses import grid

PERIODS = (2, 4, 8)
board = grids.checkerboard
measure = jax.jit(metrics.grid_energy, static_argnums=2)


@pytest.fixture(scope="module")
def photographs():
  return grids.photographs()


@pytest.fixture(scope="module")
def holes():
  return grids.holes()


def smooth(images):
  return ndimage.gaussian_filter(images, (0, 2, 2, 0))


def log_mean(values):
  assert values.dtype == jnp.float32
  assert np.isfinite(values).all()
  assert (np.asarray(values) > 0).all()
  return np.exp(np.log(values).mean())


@pytest.mark.parametrize("period", [2, 3, 8])
def test_it_is_the_formula(photographs, holes, period):
  found = measure(photographs[:1], holes[:1], period)
  hole = holes[0, ..., 0] > 0
  in_hole, in_known = (
    grids.energies(photographs[0], region, period) for region in (hole, ~hole)
  )
  np.testing.assert_allclose(found, [in_hole / in_known], rtol=1e-3)


@pytest.mark.slow
def test_images_without_a_grid_have_about_one(photographs, holes):
  noise = np.random.default_rng(0).uniform(0.2, 0.8, photographs.shape)
  fills = {
    "the photograph": photographs,
    "noise": noise,
    "a colour": np.full_like(photographs, 0.5),
    "a blurred photograph": smooth(photographs),
    "blurred noise": smooth(noise) * 3 - 1,
  }
  for name, fill in fills.items():
    completed = np.where(holes > 0, fill, photographs).astype(np.float32)
    low = 0.2 if "blurred" in name else 0.7  # blurred fills have less than 1
    for period in PERIODS:
      assert low < log_mean(measure(completed, holes, period)) < 1.4, (name, period)
  everywhere = np.asarray(noise, np.float32)
  for period in PERIODS:
    values = measure(everywhere, holes, period)
    assert 0.75 < log_mean(values) < 1.33, period


def test_noise_has_about_one_in_either_region(holes):
  noise = (
    np.random.default_rng(1)
    .uniform(0, 1, (8, grids.SIDE, grids.SIDE, 3))
    .astype(np.float32)
  )

  @functools.partial(jax.jit, static_argnums=2)
  def peak(images, region, period):
    energy, near, pixels = grid.grid_energies(images, region, period)
    return energy / near, pixels > 0

  for period in PERIODS:
    for region in (holes, 1 - holes):
      peaks, measured = peak(noise, region, period)
      assert measured.all()
      assert 0.8 < log_mean(peaks) < 1.6, period


def test_grids_are_found_and_grow_with_their_strength(photographs, holes):
  strengths = (0, 0.01, 0.03, 0.09)
  for period in PERIODS:
    for fill in (smooth(photographs), photographs):
      values = [
        measure(
          np.where(holes > 0, fill + s * board(period), photographs),
          holes,
          period,
        )
        for s in strengths
      ]
      assert (np.diff(values[1:], axis=0) > 0).all(), period
      means = list(map(log_mean, values))
      assert np.diff(means).min() > 0
      assert means[-1] > 15 * means[0]


@pytest.mark.slow
def test_a_shifted_grid_has_the_same_energy(photographs, holes):
  base = smooth(photographs)
  for period in PERIODS:
    values = [
      log_mean(
        measure(
          np.where(holes > 0, base + 0.03 * board(period, offset), photographs),
          holes,
          period,
        )
      )
      for offset in ((0, 0), (1, 0), (1, 3))
    ]
    assert min(values) > 8
    assert max(values) < 1.3 * min(values)


@pytest.mark.slow
def test_a_grid_of_another_period_is_not_one(photographs, holes):
  y, x = np.mgrid[: grids.SIDE, : grids.SIDE]
  for other, period in ((6, 4), (5, 8)):
    waves = np.cos(2 * np.pi * x / other) * np.cos(2 * np.pi * y / other)
    completed = smooth(photographs) + 0.03 * waves[None, :, :, None]
    completed = np.where(holes > 0, completed, photographs).astype(np.float32)
    there = log_mean(measure(completed, holes, other))
    assert log_mean(measure(completed, holes, period)) < 2 < there / 5


def test_a_grid_in_the_known_region_too_cancels(photographs, holes):
  images = smooth(photographs) + 0.05 * board(4)
  assert 0.4 < log_mean(measure(images, holes, 4)) < 2.5


def test_regions_too_small_to_measure():
  images = jnp.asarray(np.random.default_rng(0).random((4, 32, 32, 3)), jnp.float32)
  mask = np.zeros((4, 32, 32, 1), bool)
  mask[1] = True  # no known pixel
  mask[2, 3:29, 3:29] = True
  mask[3, 5:8] = True  # narrower than a period
  values = measure(images, mask, 8)
  np.testing.assert_array_equal(np.isfinite(values), True)
  np.testing.assert_array_equal(values[np.array([0, 3])], 1)
  assert values[1] != 1
  assert values[2] != 1
  flat = measure(jnp.full((4, 32, 32, 3), 0.3), mask, 8)
  np.testing.assert_allclose(flat, 1, rtol=1e-3)
  assert measure(images[:0], mask[:0], 8).shape == (0,)


@pytest.mark.slow
def test_masks_of_any_type_gradients_and_single_images(photographs, holes):
  images, mask = photographs[:2, 20:60, 30:70], holes[:2, 20:60, 30:70]
  expected = measure(images, mask, 2)
  for dtype in (bool, np.int32, np.uint8, jnp.bfloat16):
    found = measure(images, jnp.asarray(mask, dtype), 2)
    np.testing.assert_array_equal(found, expected)
  for i in range(2):
    alone = measure(images[i : i + 1], mask[i : i + 1], 2)
    np.testing.assert_allclose(alone[0], expected[i], rtol=1e-4)
  gradient = jax.jit(jax.grad(lambda x: metrics.grid_energy(x, mask, 2).sum()))
  assert np.isfinite(gradient(images)).all()
  assert np.isfinite(gradient(jnp.zeros_like(images))).all()
  poisoned = images.copy()
  poisoned[0, *np.argwhere(mask[0, ..., 0] > 0)[0]] = np.nan
  assert np.isfinite(measure(poisoned, mask, 2)[1])


def test_wrong_arguments_are_refused():
  images, mask = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 16, 16, 1))
  for period in (1, 9):
    with pytest.raises(ValueError, match=f"half the image's side, not {period} for"):
      metrics.grid_energy(images, mask, period)
  with pytest.raises(ValueError, match=r"mask must be \[B, H, W, 1\]"):
    metrics.grid_energy(images, mask[..., 0], 2)
  with pytest.raises(ValueError, match="1 in the hole"):
    metrics.grid_energy(images, mask + 0.5, 2)
  with pytest.raises(ValueError, match="one shape"):
    metrics.grid_energy(images[0], mask, 2)
