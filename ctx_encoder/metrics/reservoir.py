"""A sample of features too many to keep."""

import numpy as np
from numpy.typing import ArrayLike

from ctx_encoder.metrics import distributions


class Reservoir:
  """A uniform random sample of fixed size of features that pass in batches.

  Every set of `size` of the features seen so far is kept with the same probability.

  Args:
    size: how many to keep, at least 1.
    seed: of the choice.

  Raises:
    ValueError: the size is not positive.

  References:
    Vitter, Random Sampling with a Reservoir, ACM Transactions on Mathematical Software
    11, 1985, algorithm R.
  """

  def __init__(self, size: int, *, seed: int = 0):
    if size < 1:
      raise ValueError(f"size must be at least 1, not {size}.")
    self.count = 0  # how many were seen
    self._size = size
    self._draw = np.random.default_rng(seed)
    self._kept: np.ndarray | None = None

  def add(self, features: ArrayLike) -> None:
    """Takes in a batch `[N, D]`, any N; the first one sets D and the type."""
    features = distributions.check_features(features, "features")
    if self._kept is None:
      self._kept = np.empty((self._size, features.shape[1]), features.dtype)
    distributions.check_sizes(self._kept.shape[1], features.shape[1])
    positions = np.arange(self.count, self.count + len(features))
    places = self._draw.integers(0, positions + 1)
    places = np.where(positions < self._size, positions, places)
    kept = places < self._size
    self._kept[places[kept]] = features[kept]  # of one place's features the last stays
    self.count += len(features)

  @property
  def features(self) -> np.ndarray:
    """A copy of those kept, `[min(size, count), D]`, in no order of meaning."""
    if self._kept is None:
      raise ValueError("The reservoir is empty: add features first.")
    return self._kept[: self.count].copy()
