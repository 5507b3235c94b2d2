"""Confidence intervals: against SciPy's bootstrap, and whether they cover."""

import numpy as np
import pytest
from scipy import stats

from ctx_encoder.metrics import intervals


def test_bootstrap_is_scipys():
  values = np.random.default_rng(0).exponential(size=60)
  mean, low, high = intervals.bootstrap(values, resamples=20_000)
  reference = stats.bootstrap(
    (values,),
    np.mean,
    method="percentile",
    n_resamples=20_000,
    random_state=np.random.default_rng(1),
  ).confidence_interval
  assert mean == values.mean()
  np.testing.assert_allclose([low, high], reference, rtol=0.01)


def test_the_interval_covers_the_mean_about_as_often_as_it_says():
  rng = np.random.default_rng(0)
  covered = 0
  for trial in range(300):
    _, low, high = intervals.bootstrap(rng.normal(size=50), resamples=300, seed=trial)
    covered += low <= 0 <= high
  assert 0.88 < covered / 300 < 0.99


def test_the_same_values_give_the_same_interval():
  values = np.random.default_rng(0).normal(size=30)
  assert intervals.bootstrap(values) == intervals.bootstrap(values)
  assert intervals.bootstrap(values) != intervals.bootstrap(values, seed=1)


def test_one_value_and_none():
  assert intervals.bootstrap(np.array([3.0])) == (3, 3, 3)
  assert np.isnan(intervals.bootstrap(np.array([]))).all()
  with pytest.raises(ValueError, match=r"\[N\], not \(2, 2\)"):
    intervals.bootstrap(np.zeros((2, 2)))


def test_what_is_not_finite_stays_visible():
  assert np.isnan(intervals.bootstrap(np.array([1.0, np.nan, 2.0]))).all()
