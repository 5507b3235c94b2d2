"""Fréchet and kernel distances against SciPy, scikit-learn and closed forms."""

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from ctx_encoder import metrics
from ctx_encoder.metrics import distributions


def draws(count, size, seed=0, offset=0.0):
  """Correlated features `[count, size]`; their mixing matrix depends on the seed."""
  draw = np.random.default_rng(seed)
  mixing, mean = draw.standard_normal((size, size)), draw.standard_normal(size)
  return draw.standard_normal((count, size)) @ mixing + mean + offset


def scipy_frechet(x, y):
  """The distance by a general matrix square root."""
  covariances = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
  root = linalg.sqrtm(covariances[0] @ covariances[1])
  means = np.square(x.mean(0) - y.mean(0)).sum()
  return means + np.trace(covariances[0] + covariances[1] - 2 * np.real(root))


def plain_mmd2(x, y):
  """Unbiased MMD^2 by its definition, a loop over all pairs."""

  def mean(pairs):
    return np.mean([(a @ b / len(a) + 1) ** 3 for a, b in pairs])

  within = [
    mean([(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])
    for z in (x, y)
  ]
  return sum(within) - 2 * mean([(a, b) for a in x for b in y])


def of_normals(mean, deviation):
  """E x, E x^2 and E x^3 of a normal distribution."""
  return mean, mean**2 + deviation**2, mean**3 + 3 * mean * deviation**2


def test_moments_are_those_of_numpy():
  features = draws(50, 6)
  found = metrics.moments(features)
  assert found.count == 50
  np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
  np.testing.assert_allclose(found.covariance, np.cov(features, rowvar=False), 1e-12)


@pytest.mark.parametrize("splits", [[], [1], [0, 7, 7, 20], [49], list(range(50))])
def test_merged_batches_have_the_moments_of_all(splits):
  features = draws(50, 6)
  pieces = [metrics.moments(batch) for batch in np.split(features, splits)]
  covariance = np.cov(features, rowvar=False)
  for order in (pieces, pieces[::-1]):
    found = functools.reduce(metrics.merge_moments, order)
    assert found.count == 50
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10)


def test_a_large_mean_does_not_cancel_the_covariance():
  features = draws(200, 4)
  far = features + 1e8
  rounded = far - 1e8  # the features as rounded by the large mean
  found = functools.reduce(
    metrics.merge_moments, map(metrics.moments, np.array_split(far, 13))
  )
  np.testing.assert_allclose(found.covariance, np.cov(rounded, rowvar=False), 1e-7)


def test_moments_are_in_float64_whatever_the_input():
  half = jnp.asarray(draws(20, 3, offset=100), jnp.bfloat16)
  found = metrics.moments(half)
  assert found.mean.dtype == found.scatter.dtype == np.float64
  expected = np.asarray(half).astype(float)
  np.testing.assert_allclose(found.mean, expected.mean(0), rtol=1e-12)
  np.testing.assert_allclose(found.covariance, np.cov(expected, rowvar=False), 1e-12)
  counts = np.array([[0], [255], [255]], np.uint8)
  np.testing.assert_allclose(metrics.moments(counts).covariance, [[21675]])


def test_moments_saved_and_loaded(tmp_path):
  found = metrics.moments(draws(9, 3))
  np.savez(tmp_path / "moments.npz", **vars(found))
  with np.load(tmp_path / "moments.npz") as arrays:
    read = metrics.Moments(**arrays)
  assert metrics.frechet_distance(found, read) == pytest.approx(0, abs=1e-12)
  twice = metrics.merge_moments(read, found)
  assert twice.count == 18
  np.testing.assert_allclose(twice.mean, found.mean, rtol=1e-12)


@pytest.mark.parametrize(("first", "second"), [(50, 60), (200, 9)])
def test_frechet_distance_is_that_of_scipy(first, second):
  x, y = draws(first, 8, seed=1), draws(second, 8, seed=2)
  one, other = metrics.moments(x), metrics.moments(y)
  expected = scipy_frechet(x, y)
  assert metrics.frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
  assert metrics.frechet_distance(other, one) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_commuting_gaussians():
  def gaussian(mean, deviations):
    mean, deviations = np.asarray(mean, float), np.asarray(deviations, float)
    return metrics.Moments(11, mean, 10 * np.diag(deviations**2))

  one, other = gaussian([0, 1, 2], [1, 2, 0]), gaussian([3, 1, -2], [4, 2, 0.5])
  expected = (9 + 0 + 16) + (9 + 0 + 0.25)
  assert metrics.frechet_distance(one, other) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [2, 5, 40])
def test_fewer_examples_than_features(count):
  """With rank-deficient covariances, by the roots of a small matrix.

  The eigenvalues of S1 S2 that are not 0 are the squares of the singular values of the
  centred features' `[N1, N2]` products.
  """
  x, y = draws(count, 64, seed=3), draws(count + 1, 64, seed=4)
  one, other = metrics.moments(x), metrics.moments(y)
  a, b = (z - z.mean(0) for z in (x, y))
  a, b = a / np.sqrt(len(a) - 1), b / np.sqrt(len(b) - 1)
  overlap = linalg.svdvals(a @ b.T).sum()
  expected = (
    np.square(x.mean(0) - y.mean(0)).sum() + (a**2).sum() + (b**2).sum() - 2 * overlap
  )
  assert metrics.frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
  scale = np.trace(one.covariance)
  assert metrics.frechet_distance(one, one) == pytest.approx(0, abs=1e-12 * scale)


def test_frechet_distance_of_one_set_is_zero_and_never_below():
  for seed in range(20):
    one = metrics.moments(draws(30, 5, seed))
    assert 0 <= metrics.frechet_distance(one, one) < 1e-12 * np.trace(one.covariance)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_features_give_nan(value):
  x, y = draws(20, 3, seed=5), draws(20, 3, seed=6)
  x[4, 1] = value
  one, other = metrics.moments(x), metrics.moments(y)
  assert math.isnan(metrics.frechet_distance(one, other))
  merged = metrics.merge_moments(other, one)
  assert math.isnan(metrics.frechet_distance(other, merged))
  assert all(map(math.isnan, metrics.kernel_distance(x, y)))


def test_invalid_moments_are_refused():
  one, other = metrics.moments(draws(5, 3)), metrics.moments(draws(5, 4))
  for call in (metrics.frechet_distance, metrics.merge_moments):
    with pytest.raises(ValueError, match="of one size, not 3 and 4"):
      call(one, other)
  for count in (0, 1):
    few = metrics.moments(draws(count, 3))
    with pytest.raises(ValueError, match=f"at least 2 examples, not {count}"):
      metrics.frechet_distance(one, few)
  for shape in ((3,), (2, 3, 4), (3, 0), ()):
    with pytest.raises(ValueError, match=r"features must be \[N, D\], not of shape"):
      metrics.moments(np.zeros(shape))


def test_kernel_distance_is_the_mean_over_disjoint_subsets():
  """Two halves of each set, chosen by the seed."""
  x, y = draws(8, 3, seed=1), draws(9, 3, seed=2)
  found = metrics.kernel_distance(x, y, subsets=2, subset_size=4, seed=7)
  draw = np.random.default_rng(7)
  x, y = x[draw.permutation(8)], y[draw.permutation(9)]
  halves = [plain_mmd2(x[:4], y[:4]), plain_mmd2(x[4:], y[4:8])]
  assert found.mean == pytest.approx(np.mean(halves), rel=1e-12)
  margin = stats.t.ppf(0.975, 1) * np.std(halves, ddof=1) / np.sqrt(2)
  assert found.high - found.mean == pytest.approx(margin, rel=1e-12)
  assert found.mean - found.low == pytest.approx(margin, rel=1e-12)


@pytest.mark.parametrize("values", [1, 50, 2**22])
def test_mmd2_is_its_definition_at_any_block_size(monkeypatch, values):
  monkeypatch.setattr(distributions, "_KERNEL_VALUES", values)
  x, y = draws(12, 3, seed=1), draws(10, 3, seed=2)
  expected = plain_mmd2(x, y)
  assert distributions._mmd2(x, y) == pytest.approx(expected, rel=1e-12)


def test_the_kernel_is_that_of_scikit_learn():
  pairwise = pytest.importorskip("sklearn.metrics.pairwise")
  x, y = draws(30, 7, seed=1), draws(20, 7, seed=2)
  found = distributions._kernel_sum(x, y)
  expected = pairwise.polynomial_kernel(x, y, degree=3, coef0=1).sum()
  assert found == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_has_the_closed_form_s_expectation():
  """Of normal numbers: (x y + 1)^3 compares their first three moments."""
  one, other = (0.0, 1.0), (0.3, 0.8)
  first, second, third = np.square(np.subtract(of_normals(*one), of_normals(*other)))
  expected = third + 3 * second + 3 * first
  draw = np.random.default_rng(0)
  found = [
    metrics.kernel_distance(
      draw.normal(*one, (100, 1)), draw.normal(*other, (100, 1)), subset_size=10
    ).mean
    for _ in range(300)
  ]
  error = np.std(found) / np.sqrt(len(found))
  assert error < 0.1 * expected
  assert abs(np.mean(found) - expected) < 4 * error


def test_kernel_distance_of_one_distribution_is_zero_on_average():
  draw = np.random.default_rng(1)
  found = [
    metrics.kernel_distance(*draw.standard_normal((2, 60, 4)), seed=seed).mean
    for seed in range(300)
  ]
  error = np.std(found) / np.sqrt(len(found))
  assert abs(np.mean(found)) < 4 * error
  assert min(found) < 0 < max(found)


@pytest.mark.parametrize("other", [(0.0, 1.0), (0.3, 0.8)])
def test_at_least_95_percent_of_intervals_contain_the_distance(other):
  """More: the mean over several splits varies less than the interval assumes."""
  differences = np.square(np.subtract(of_normals(0, 1), of_normals(*other)))
  truth = differences @ [3, 3, 1]
  draw = np.random.default_rng(2)
  covered = []
  for _ in range(400):
    x, y = draw.normal(0, 1, (100, 1)), draw.normal(*other, (100, 1))
    found = metrics.kernel_distance(x, y, subsets=20, subset_size=10)
    covered.append(found.low <= truth <= found.high)
  assert np.mean(covered) > 0.93
  assert not all(covered)


def test_more_examples_narrow_the_interval():
  def width(count):
    x, y = draws(count, 3, seed=1), draws(count, 3, seed=1)[::-1] + 0.1
    found = metrics.kernel_distance(x, y, subset_size=20)
    return found.high - found.low

  assert width(2000) < width(100) / 2


def test_kernel_distance_is_a_function_of_its_seed():
  x, y = draws(50, 3, seed=1), draws(40, 3, seed=2)
  found = metrics.kernel_distance(x, y, seed=3)
  assert found == metrics.kernel_distance(x.copy(), y.copy(), seed=3)
  assert found != metrics.kernel_distance(x, y, seed=4)


def test_subsets_and_their_sizes():
  x, y = draws(90, 3, seed=1), draws(45, 3, seed=2)
  default = metrics.kernel_distance(x, y)
  assert default == metrics.kernel_distance(x, y, subset_size=4)  # 45 // 10
  whole = metrics.kernel_distance(x, y, subset_size=10, subsets=8)  # splits of 4
  assert whole == metrics.kernel_distance(x, y, subset_size=10, subsets=11)
  assert whole != metrics.kernel_distance(x, y, subset_size=10, subsets=12)


def test_kernel_distance_of_half_precision_is_computed_in_float64():
  half = [jnp.asarray(draws(20, 3, seed=s), jnp.bfloat16) for s in (1, 2)]
  found = metrics.kernel_distance(*half)
  full = [np.asarray(x).astype(float) for x in half]
  assert found == metrics.kernel_distance(*full)


def test_invalid_features_are_refused():
  x = draws(20, 3)
  for shape in ((20,), (2, 20, 3), (20, 0)):
    with pytest.raises(ValueError, match=r"second must be \[N, D\], not of shape"):
      metrics.kernel_distance(x, np.zeros(shape))
  with pytest.raises(ValueError, match="of one size, not 3 and 4"):
    metrics.kernel_distance(x, draws(20, 4))
  refused = [
    ({"subset_size": 11}, "100 subsets of 11 cannot be drawn from 20"),
    ({"subset_size": 1}, "100 subsets of 1 cannot"),
    ({"subsets": 1}, "1 subsets of 2 cannot"),
  ]
  for options, message in refused:
    with pytest.raises(ValueError, match=message):
      metrics.kernel_distance(x, x, **options)
  with pytest.raises(ValueError, match="from 3 without overlap; pass a smaller"):
    metrics.kernel_distance(x, x[:3])
  with pytest.raises(ValueError, match="from 0 without"):
    metrics.kernel_distance(x, x[:0])


@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_a_reservoir_is_a_uniform_sample(batch_size):
  """By a chi-square test over seeds."""
  count, size, trials = 20, 5, 2000
  numbers = np.arange(count)[:, None]
  kept = np.zeros(count)
  pairs = np.zeros(count - 1)  # neighbours kept together
  for seed in range(trials):
    reservoir = metrics.Reservoir(size, seed=seed)
    for i in range(0, count, batch_size):
      reservoir.add(numbers[i : i + batch_size])
    found = np.zeros(count)
    found[reservoir.features[:, 0]] = 1
    assert found.sum() == size
    kept += found
    pairs += found[1:] * found[:-1]
  expected = trials * size / count
  statistic = np.square(kept - expected).sum() / (expected * (1 - size / count))
  assert statistic < stats.chi2.ppf(1 - 1e-4, count)
  together = trials * size * (size - 1) / (count * (count - 1))
  assert (np.abs(pairs - together) < 5 * np.sqrt(together)).all()


def test_a_reservoir_that_is_not_full_holds_all_features():
  features = draws(7, 3).astype(np.float32)
  reservoir = metrics.Reservoir(10)
  for batch in (features[:0], features[:4], features[4:]):
    reservoir.add(batch)
  np.testing.assert_array_equal(reservoir.features, features)
  assert reservoir.features.dtype == np.float32
  assert reservoir.count == 7
  before = reservoir.features
  reservoir.add(np.zeros((100, 3)))
  np.testing.assert_array_equal(before, features)
  assert reservoir.features.shape == (10, 3)
  assert reservoir.count == 107


def test_invalid_uses_of_a_reservoir_are_refused():
  with pytest.raises(ValueError, match="size must be at least 1, not 0"):
    metrics.Reservoir(0)
  reservoir = metrics.Reservoir(3)
  with pytest.raises(ValueError, match="add features first"):
    _ = reservoir.features
  with pytest.raises(
    ValueError, match=r"features must be \[N, D\], not of shape \(4,\)"
  ):
    reservoir.add(np.zeros(4))
  reservoir.add(np.zeros((1, 4)))
  with pytest.raises(ValueError, match="of one size, not 4 and 5"):
    reservoir.add(np.zeros((1, 5)))
