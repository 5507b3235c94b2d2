"""Confidence intervals against SciPy, and how often they contain the mean."""

import numpy as np
import pytest
from scipy import stats

from ctx_encoder.metrics import intervals


def test_bootstrap_agrees_with_scipy():
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


def test_95_percent_of_intervals_contain_the_mean():
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


def test_one_value_and_no_values():
  assert intervals.bootstrap(np.array([3.0])) == (3, 3, 3)
  assert np.isnan(intervals.bootstrap(np.array([]))).all()
  with pytest.raises(ValueError, match=r"\[N\], not \(2, 2\)"):
    intervals.bootstrap(np.zeros((2, 2)))


def test_nan_gives_nan():
  assert np.isnan(intervals.bootstrap(np.array([1.0, np.nan, 2.0]))).all()


def test_student_interval_is_that_of_scipy():
  values = np.random.default_rng(0).normal(size=7)
  error = values.std(ddof=1) / np.sqrt(7)
  for confidence in (0.5, 0.95):
    found = intervals.student_interval(values.mean(), error, 6, confidence=confidence)
    expected = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    np.testing.assert_allclose(found[1:], expected, rtol=1e-12)
    assert found.mean == values.mean()
