"""Confidence intervals of means: bootstrap, and Student's t."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
  """A mean and its confidence interval, from `low` to `high`."""

  mean: float
  low: float
  high: float


def bootstrap(
  values: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
  """Returns the mean of independent values and its percentile bootstrap interval.

  The limits are quantiles of the means of N values drawn with replacement. To compare
  two systems on the same images, pass the differences: their paired interval is
  narrower than that of either mean.

  Args:
    values: `[N]`, one for each image.
    confidence: in (0, 1).
    resamples: number of draws; 2000 determine the limits to a few per cent of the
      interval's width.
    seed: PRNG seed of the draws.

  Returns:
    The interval; for N = 1 the value itself, for N = 0 NaN.

  Raises:
    ValueError: values are not `[N]`.

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
  for i in range(resamples):  # one at a time, for memory independent of `resamples`
    means[i] = values[rng.integers(0, len(values), len(values))].mean()
  low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
  return Interval(float(values.mean()), float(low), float(high))


def student_interval(
  mean: float, standard_error: float, degrees: int, *, confidence: float = 0.95
) -> Interval:
  """Returns mean +- t * standard_error, Student's t with `degrees` of freedom."""
  from scipy import stats  # takes half a second to import

  margin = float(stats.t.ppf((1 + confidence) / 2, degrees)) * standard_error
  return Interval(mean, mean - margin, mean + margin)
