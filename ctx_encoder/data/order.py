"""The order of training examples, a pure function of (seed, step)."""

import functools

import numpy as np


def batch_indices(
  num_examples: int, batch_size: int, seed: int, step: int
) -> np.ndarray:
  """Returns the positions of the examples in the batch of a training step.

  Epoch `step // (num_examples // batch_size)` is a permutation drawn from (seed,
  epoch); the remainder that does not fill a batch is left out of that epoch.

  Args:
    num_examples: number of training examples.
    batch_size: images per step, over all processes.
    seed: seed of the order, at least 0.
    step: training step, counted from 0.
  Returns:
    int32 `[batch_size]`, read-only, distinct positions in [0, num_examples).
  Raises:
    ValueError: the batch is larger than the data set.
  """
  check_batch_size(num_examples, batch_size)
  epoch, position = divmod(step, num_examples // batch_size)
  start = position * batch_size
  return _permutation(num_examples, seed, epoch)[start : start + batch_size]


def check_batch_size(num_examples: int, batch_size: int) -> None:
  """Raises ValueError, with the remedy, unless the examples fill at least a batch."""
  if batch_size < 1:
    raise ValueError(f"batch_size must be at least 1, not {batch_size}.")
  if batch_size > num_examples:
    raise ValueError(
      f"batch_size={batch_size} is larger than the training set ({num_examples}"
      f" images): set batch_size to {num_examples} or less, or add images."
    )


@functools.lru_cache(maxsize=4)  # prefetching reaches into the next epoch
def _permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
  bits = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
  order = np.random.Generator(bits).permutation(num_examples).astype(np.int32)
  order.setflags(write=False)
  return order
