"""Baselines complete the hole without reading it, and change nothing else."""

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


def test_known_pixels_and_arguments_are_not_changed():
  for complete in BASELINES:
    image, mask = picture()
    before = image.copy(), mask.copy()
    completed = complete(image, mask)
    assert completed.dtype == np.uint8
    assert completed.shape == image.shape
    np.testing.assert_array_equal(completed[~mask], image[~mask])
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


def test_pixels_of_the_hole_are_not_read():
  for complete in BASELINES:
    image, mask = picture()
    completed = complete(image, mask)
    for hidden in (0, 255, np.random.default_rng(1).integers(0, 256, image.shape)):
      changed = np.where(mask[..., None], hidden, image).astype(np.uint8)
      np.testing.assert_array_equal(complete(changed, mask), completed)


def test_a_constant_colour_is_continued():
  _, mask = picture()
  image = np.full((*mask.shape, 3), (10, 128, 250), np.uint8)
  hidden = np.where(mask[..., None], 77, image).astype(np.uint8)
  # OpenCV rounds as its front advances.
  for complete, atol in {baselines.mean_color: 0, baselines.telea: 2}.items():
    completed = complete(hidden, mask).astype(int)
    np.testing.assert_allclose(completed, image, rtol=0, atol=atol)


def test_no_hole_and_a_hole_without_surroundings():
  for complete in BASELINES:
    image, mask = picture()
    np.testing.assert_array_equal(complete(image, np.zeros_like(mask)), image)
    found = [complete(hidden, np.ones_like(mask)) for hidden in (image, 255 - image)]
    np.testing.assert_array_equal(*found)  # whatever the hole hides
    assert found[0].shape == image.shape


def test_mean_color_is_the_rounded_mean_of_the_known_pixels():
  image, mask = picture()
  expected = [round(image[..., c][~mask].mean()) for c in range(3)]
  completed = baselines.mean_color(image, mask)
  assert (completed[mask] == expected).all()


def test_telea_continues_a_gradient_better_than_a_constant_colour():
  image, mask = picture()
  truth, away = image[mask].astype(float), {}
  for complete in BASELINES:
    away[complete] = np.abs(complete(image, mask)[mask] - truth).mean()
  assert away[baselines.telea] < 0.6 * away[baselines.mean_color]


def test_default_and_named_baselines():
  usable, missing = baselines.default()
  assert [one.printed for one in usable] == ["mean colour", "Telea"]
  assert missing == []
  (one,) = baselines.named(["biharmonic"])
  assert one.complete is baselines.biharmonic


def test_a_missing_library_is_reported_and_an_error_where_it_was_asked_for(monkeypatch):
  monkeypatch.setitem(sys.modules, "cv2", None)
  usable, missing = baselines.default()
  assert [one.printed for one in usable] == ["mean colour"]
  (note,) = missing
  assert "Telea needs cv2" in note
  assert "pip install opencv-python-headless" in note
  with pytest.raises(ModuleNotFoundError, match="Telea needs cv2, which is not inst"):
    baselines.named(["mean", "telea"])
