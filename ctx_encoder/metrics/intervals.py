"""How sure a mean is."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
  """A mean and its 95 % confidence interval."""

  mean: float
  low: float
  high: float


def bootstrap(
  values: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
  """Returns the mean of independent values and its percentile bootstrap interval.

  The values are drawn anew with replacement, as many as there are, and the interval
  lies between the quantiles of those means. For the difference of two systems on the
  same images, give the differences: paired, they are much surer than either mean.

  Args:
    values: `[N]`, one an image.
    confidence: in (0, 1).
    resamples: number of draws; the interval moves by some per cent of its width.
    seed: the same values and seed give the same interval.

  Returns:
    The interval; of a single value it is that value, of none not a number.

  References:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1:
    raise ValueError(f"values must be [N], not {values.shape}.")
  if not len(values):
    return Interval(np.nan, np.nan, np.nan)
  rng = np.random.default_rng(seed)
  means = np.empty(resamples)
  for i in range(resamples):  # one at a time: memory does not grow with resamples
    means[i] = values[rng.integers(0, len(values), len(values))].mean()
  low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
  return Interval(float(values.mean()), float(low), float(high))
