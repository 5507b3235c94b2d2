"""Baselines complete the hole, see nothing of it, and leave the rest alone."""

import sys

import numpy as np
import pytest

from ctx_encoder.evaluation import baselines

BASELINES = [baselines.mean_color, baselines.telea]


def picture(seed=0):
  """A gradient under noise, uint8 `[24, 32, 3]`, and a mask of a hole and a speck."""
  y, x = np.mgrid[:24, :32]
  gradient = np.stack([8 * y, 6 * x, 4 * (x + y)], axis=-1)
  noise = np.random.default_rng(seed).integers(0, 16, gradient.shape)
  mask = np.zeros((24, 32), bool)
  mask[6:18, 8:20] = mask[2, 2] = True
  return (gradient + noise).astype(np.uint8), mask


@pytest.mark.parametrize("complete", BASELINES)
def test_known_pixels_stay_and_arguments_too(complete):
  image, mask = picture()
  before = image.copy(), mask.copy()
  completed = complete(image, mask)
  assert completed.dtype == np.uint8
  assert completed.shape == image.shape
  np.testing.assert_array_equal(completed[~mask], image[~mask])
  np.testing.assert_array_equal(image, before[0])
  np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize("complete", BASELINES)
def test_nothing_of_the_hole_is_seen(complete):
  image, mask = picture()
  completed = complete(image, mask)
  for hidden in (0, 255, np.random.default_rng(1).integers(0, 256, image.shape)):
    changed = np.where(mask[..., None], hidden, image).astype(np.uint8)
    np.testing.assert_array_equal(complete(changed, mask), completed)


@pytest.mark.parametrize("complete", BASELINES)
def test_one_colour_is_continued(complete):
  _, mask = picture()
  image = np.full((*mask.shape, 3), (10, 128, 250), np.uint8)
  hidden = np.where(mask[..., None], 77, image).astype(np.uint8)
  completed = complete(hidden, mask)
  # OpenCV rounds as its front goes on.
  atol = {baselines.mean_color: 0, baselines.telea: 2}[complete]
  np.testing.assert_allclose(completed.astype(int), image, rtol=0, atol=atol)


@pytest.mark.parametrize("complete", BASELINES)
def test_no_hole_and_nothing_but_hole(complete):
  image, mask = picture()
  np.testing.assert_array_equal(complete(image, np.zeros_like(mask)), image)
  seen = [complete(hidden, np.ones_like(mask)) for hidden in (image, 255 - image)]
  np.testing.assert_array_equal(*seen)  # the same, whatever is under the hole
  assert seen[0].shape == image.shape


def test_mean_color_is_the_rounded_mean_of_what_is_known():
  image, mask = picture()
  expected = [round(image[..., c][~mask].mean()) for c in range(3)]
  completed = baselines.mean_color(image, mask)
  assert (completed[mask] == expected).all()


def test_telea_continues_a_gradient_better_than_one_colour_does():
  image, mask = picture()
  truth, away = image[mask].astype(float), {}
  for complete in BASELINES:
    away[complete] = np.abs(complete(image, mask)[mask] - truth).mean()
  assert away[baselines.telea] < 0.6 * away[baselines.mean_color]


def test_available():
  assert list(baselines.available()) == ["mean colour", "Telea"]


def test_available_without_opencv(monkeypatch):
  monkeypatch.setitem(sys.modules, "cv2", None)
  assert list(baselines.available()) == ["mean colour"]
