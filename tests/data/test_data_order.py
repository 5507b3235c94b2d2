"""Order, ids and split are pure functions with pinned results."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctx_encoder.data import batch_indices
from ctx_encoder.data.split import example_ids, subset, validation_mask

NAMES = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=60, unique=True)


@settings(deadline=None)
@given(
  num_examples=st.integers(1, 200),
  batch_size=st.integers(1, 200),
  seed=st.integers(0, 2**32),
  epoch=st.integers(0, 1000),
)
def test_an_epoch_shows_no_example_twice(num_examples, batch_size, seed, epoch):
  batch_size = min(batch_size, num_examples)
  steps = num_examples // batch_size
  seen = [
    batch_indices(num_examples, batch_size, seed, epoch * steps + step)
    for step in range(steps)
  ]
  assert all(
    indices.shape == (batch_size,) and indices.dtype == np.int32 for indices in seen
  )
  everyone = np.concatenate(seen)
  assert len(np.unique(everyone)) == steps * batch_size
  assert everyone.min() >= 0
  assert everyone.max() < num_examples
  assert num_examples - len(everyone) < batch_size  # no more left out than must be


def test_batches_do_not_depend_on_earlier_calls():
  forward = [batch_indices(100, 8, 3, step) for step in range(40)]
  backward = [batch_indices(100, 8, 3, step) for step in reversed(range(40))]
  np.testing.assert_array_equal(forward, backward[::-1])


def test_order_is_pinned():
  # Resumed runs need this order: NumPy's PCG64 over SeedSequence.
  sequence = np.random.SeedSequence([7, 2])
  expected = np.random.Generator(np.random.PCG64(sequence)).permutation(10)
  np.testing.assert_array_equal(batch_indices(10, 5, 7, 4), expected[:5])
  np.testing.assert_array_equal(batch_indices(10, 5, 7, 5), expected[5:])


def test_seeds_and_epochs_differ():
  orders = {
    tuple(batch_indices(50, 50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)
  }
  assert len(orders) == 4


def test_indices_are_read_only():
  with pytest.raises(ValueError, match="read-only"):
    batch_indices(10, 5, 0, 0)[0] = 1


def test_impossible_batch_sizes_are_refused():
  for batch_size, message in (
    (11, r"batch_size=11 .*\(10 images\): set batch_size to 10 or less"),
    (0, "batch_size must be at least 1, not 0"),
    (-1, "batch_size must be at least 1, not -1"),
  ):
    with pytest.raises(ValueError, match=message):
      batch_indices(10, batch_size, 0, 0)


@settings(deadline=None)
@given(names=NAMES, added=NAMES, fraction=st.floats(0, 1))
def test_examples_stay_in_their_split_when_files_are_added(names, added, fraction):
  before = dict(zip(names, validation_mask(names, fraction), strict=True))
  everyone = sorted({*names, *added})
  after = dict(zip(everyone, validation_mask(everyone, fraction), strict=True))
  assert all(after[name] == held_out for name, held_out in before.items())


@given(names=NAMES, low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_larger_fraction_only_adds(names, low, high):
  low, high = sorted((low, high))
  assert not np.any(validation_mask(names, low) & ~validation_mask(names, high))


def test_split_has_the_given_share():
  names = [f"{number:05d}.jpg" for number in range(10_000)]
  for fraction in (0.0, 0.05, 0.2, 0.5, 1.0):
    assert validation_mask(names, fraction).mean() == pytest.approx(fraction, abs=0.015)


def test_split_is_pinned():
  # A trained model must never be validated on its training images.
  names = [f"{number:03d}.jpg" for number in range(30)]
  held_out = [name for name in names if validation_mask([name], 0.2)[0]]
  assert held_out == ["001.jpg", "012.jpg", "013.jpg", "022.jpg", "025.jpg", "027.jpg"]


@given(names=NAMES)
def test_ids_are_the_crc_of_the_name(names):
  ids = example_ids(names)
  assert ids.dtype == np.int32
  assert ids.tolist() == [zlib.crc32(name.encode()) % 2**31 for name in names]


def test_names_that_are_not_utf8_have_ids_and_a_split():
  name = b"caf\xe9.jpg".decode(errors="surrogateescape")  # as os.listdir gives it
  assert example_ids([name])[0] == zlib.crc32(b"caf\xe9.jpg") % 2**31
  assert validation_mask([name], 1.0).all()


@given(names=NAMES, max_images=st.integers(0, 80))
def test_subset_is_sorted_and_has_at_most_max_images(names, max_images):
  chosen = subset(names, max_images)
  assert chosen == sorted(set(chosen))
  assert len(chosen) == (min(max_images, len(names)) if max_images else len(names))
  assert set(chosen) <= set(range(len(names)))


def test_subset_keeps_the_share_of_validation():
  names = [f"{number:05d}.jpg" for number in range(10_000)]
  held_out = validation_mask(names, 0.2)[subset(names, 2000)]
  assert held_out.mean() == pytest.approx(0.2, abs=0.03)


def test_augmented_copies_are_in_the_split_of_their_original():
  originals = [f"monet{number}.jpg" for number in range(100)]
  copies = [f"monet{number}_aug{number:02d}.jpg" for number in range(100)]
  held_out = validation_mask(originals, 0.3)
  assert held_out.any()
  np.testing.assert_array_equal(validation_mask(copies, 0.3), held_out)
