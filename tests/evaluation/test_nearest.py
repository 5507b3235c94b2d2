"""Nearest patches: against a plain search, and where the answer is known."""

import numpy as np
import pytest

from ctx_encoder.evaluation import nearest

SIZE = 64


def pictures(count, seed=0):
  """Smooth noise, uint8."""
  draw = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3))
  return draw.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)


def hole():
  mask = np.zeros((SIZE, SIZE), bool)
  mask[20:36, 24:40] = True
  return mask


def test_a_training_picture_is_restored():
  training = pictures(6)
  complete = nearest.make_nearest(training, chunk=4)
  for image in training:
    masked = np.where(hole()[..., None], 0, image).astype(np.uint8)
    np.testing.assert_array_equal(complete(masked, hole()), image)


def test_a_shifted_picture_is_found_at_its_place():
  training = pictures(3)
  image = np.roll(training[1], (4, -4), axis=(0, 1))
  completed = nearest.make_nearest(training)(image, hole())
  # What was rolled over the border is not near the hole.
  np.testing.assert_array_equal(completed, image)


def test_the_hole_is_not_read_and_nothing_else_is_changed():
  training, (image,) = pictures(5), pictures(1, seed=9)
  complete = nearest.make_nearest(training)
  mask = hole()
  other = np.where(mask[..., None], 255 - image, image).astype(np.uint8)
  completed = complete(image, mask)
  np.testing.assert_array_equal(completed, complete(other, mask))
  np.testing.assert_array_equal(completed[~mask], image[~mask])
  np.testing.assert_array_equal(complete(image, np.zeros_like(mask)), image)


def test_the_best_patch_is_that_of_a_plain_search():
  training, (image,) = pictures(4), pictures(1, seed=5)
  mask = hole()
  (top, bottom), (left, right) = (4, 52), (8, 56)  # the hole and 16 pixels around it
  window = np.s_[top:bottom, left:right]
  known = ~mask[window]

  def reduced(x):
    return x.reshape(12, 4, 12, 4, -1).mean(axis=(1, 3))

  whole = reduced(known[..., None].astype(float)) == 1
  errors = {}
  for number, picture in enumerate(training.astype(float)):
    for y in range(0, SIZE - 48 + 1, 4):
      for x in range(0, SIZE - 48 + 1, 4):
        difference = reduced(picture[y : y + 48, x : x + 48]) - reduced(
          image[window].astype(float)
        )
        errors[number, y, x] = (whole * difference**2).sum()
  number, y, x = min(errors, key=errors.__getitem__)
  expected = image.copy()
  patch = training[number, y : y + 48, x : x + 48]
  expected[window][~known] = patch[~known]
  np.testing.assert_array_equal(nearest.make_nearest(training)(image, mask), expected)


def test_distances_to_training_patches():
  training = pictures(5)
  seen = training[2, 16:32, 20:36]
  unseen = pictures(1, seed=7)[0, :16, :16]
  far = np.full((16, 16, 3), 255, np.uint8)
  dark = np.zeros_like(training)
  found = nearest.patch_distances(np.stack([seen, unseen]), training, chunk=2)
  assert found[0] < 0.5 < 5 < found[1]
  np.testing.assert_allclose(nearest.patch_distances(far[None], dark), 255, rtol=1e-4)


def test_bad_training_pictures():
  with pytest.raises(ValueError, match="N > 0"):
    nearest.make_nearest(np.zeros((0, 64, 64, 3), np.uint8))
  with pytest.raises(ValueError, match="multiple of 4"):
    nearest.make_nearest(np.zeros((1, 30, 30, 3), np.uint8))
