"""Distances between two sets of images in the features of a network: FID and KID.

The caller computes the features, `[N, D]` of any real type. Both distances depend on
the network and layer, and are comparable only for the same ones: name them beside every
result, as `headings.of_network` does. In papers, FID without a name means the
Inception-v3 of Heusel et al. All is computed in float64 on the host.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from ctx_encoder.metrics.intervals import Interval, student_interval

_KERNEL_VALUES = 2**22  # values of the kernel matrix in memory at a time: 32 MB


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
  """Count, mean and scatter of features, from which the Fréchet distance follows.

  Save with `np.savez(path, **vars(moments))`; load with `Moments(**np.load(path))`.

  Attributes:
    count: number of examples, N.
    mean: `[D]` float64.
    scatter: `[D, D]` float64, the sum over examples of (x - mean) (x - mean)^T.
  """

  count: int
  mean: np.ndarray
  scatter: np.ndarray

  @property
  def covariance(self) -> np.ndarray:
    """The unbiased estimate `[D, D]`, of divisor N - 1."""
    if self.count < 2:
      raise ValueError(f"A covariance needs at least 2 examples, not {self.count}.")
    return self.scatter / (self.count - 1)


def moments(features: ArrayLike) -> Moments:
  """Moments of one batch of features.

  For many batches: `functools.reduce(metrics.merge_moments, map(metrics.moments,
  batches))` needs the memory of one.

  Args:
    features: `[N, D]` real, N at least 0.

  Raises:
    ValueError: the features are not `[N, D]`.
  """
  features = check_features(features, "features").astype(np.float64)
  count, size = features.shape
  if not count:
    return Moments(0, np.zeros(size), np.zeros((size, size)))
  with np.errstate(invalid="ignore"):  # infinite features give NaN
    mean = features.mean(axis=0)
    centered = features - mean
    return Moments(count, mean, centered.T @ centered)


def merge_moments(first: Moments, second: Moments) -> Moments:
  """Moments of the union of two sets of features.

  scatter = scatter1 + scatter2 + N1 N2 / (N1 + N2) d d^T, d = mean2 - mean1. No raw
  sums of squares are subtracted, so no digits cancel.

  Args:
    first: moments of features `[N1, D]`.
    second: moments of features `[N2, D]`.

  Raises:
    ValueError: the feature sizes D differ.

  References:
    Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, The American
    Statistician 37, 1983, eq. 2.1.
  """
  check_sizes(len(first.mean), len(second.mean))
  count = int(first.count) + int(second.count)
  if not count:
    return first
  with np.errstate(invalid="ignore"):
    distance = second.mean - first.mean
    between = np.outer(distance, distance) * (first.count * (second.count / count))
    return Moments(
      count,
      first.mean + distance * (second.count / count),
      first.scatter + second.scatter + between,
    )


def frechet_distance(first: Moments, second: Moments) -> float:
  """Squared Fréchet distance of two Gaussians (FID); 0 if they are equal.

  d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). N may be smaller than D. The
  distance is biased upwards for small N: compare only distances of equal N, and of the
  same network and layer.

  Args:
    first: moments of features `[N1, D]`, N1 at least 2.
    second: moments of features `[N2, D]`, N2 at least 2.

  Returns:
    The distance, in the square of the features' unit; NaN if a moment is not finite.

  Raises:
    ValueError: the feature sizes D differ, or there are fewer than 2 examples.

  References:
    Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium, NeurIPS 2017, eq. 6; Dowson and Landau, The Fréchet Distance between
    Multivariate Normal Distributions, Journal of Multivariate Analysis 12, 1982.
  """
  check_sizes(len(first.mean), len(second.mean))
  covariances = [first.covariance, second.covariance]
  if not all(np.isfinite(x).all() for x in (first.mean, second.mean, *covariances)):
    return math.nan
  # With S = F F^T, tr (S1 S2)^(1/2) is the sum of the singular values of F1^T F2. The
  # equivalent square roots of eigenvalues would amplify rounding errors near 0.
  first_factor, second_factor = map(_factor, covariances)
  overlap = np.linalg.svd(first_factor.T @ second_factor, compute_uv=False).sum()
  means = np.square(first.mean - second.mean).sum()
  distance = means + sum(map(np.trace, covariances)) - 2 * overlap
  return max(float(distance), 0.0)


def kernel_distance(
  first: ArrayLike,
  second: ArrayLike,
  *,
  subsets: int = 100,
  subset_size: int | None = None,
  seed: int = 0,
) -> Interval:
  """Kernel distance (KID): the mean of unbiased MMD^2 over random subsets.

  MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y), k(x, y) = (x.y / D + 1)^3. Its
  expectation does not depend on N and is 0 for equal distributions, so estimates may be
  negative.

  Each set is repeatedly split at random into disjoint subsets. The 95 % interval is
  Student's t interval of the n independent pairs of one split; it is conservative, as
  the mean over several splits varies less. The two sets must be independent: completed
  images and their own originals share content, which lowers the distance.

  Args:
    first: `[N1, D]` real.
    second: `[N2, D]` real, of the same network and layer.
    subsets: largest number of pairs of subsets; only complete splits are used.
    subset_size: examples in each; None = 1000, or a tenth of the smaller set if less.
    seed: seed of the splits.

  Returns:
    The mean and its interval; NaN if a feature is not finite.

  Raises:
    ValueError: features are not `[N, D]` of one D, or too few for two subsets of at
      least 2 examples each.

  References:
    Bińkowski et al., Demystifying MMD GANs, ICLR 2018, section 4; Gretton et al., A
    Kernel Two-Sample Test, JMLR 13, 2012, eq. 3; Zaremba et al., B-tests, NeurIPS 2013
    (disjoint blocks).
  """
  first, second = check_features(first, "first"), check_features(second, "second")
  check_sizes(first.shape[1], second.shape[1])
  smaller = min(len(first), len(second))
  if subset_size is None:
    subset_size = max(2, min(1000, smaller // 10))
  if subset_size < 2 or subsets < 2 or smaller < 2 * subset_size:
    raise ValueError(
      f"An interval needs at least 2 subsets of 2 or more examples: {subsets} subsets"
      f" of {subset_size} cannot be drawn from {smaller} without overlap; pass a"
      " smaller subset_size, or more examples."
    )
  disjoint, draw = min(subsets, smaller // subset_size), np.random.default_rng(seed)
  estimates = np.empty((subsets // disjoint, disjoint))
  for split in estimates:
    rows = (
      draw.permutation(len(features))[: disjoint * subset_size].reshape(disjoint, -1)
      for features in (first, second)
    )
    split[:] = [_mmd2(first[i], second[j]) for i, j in zip(*rows, strict=True)]
  mean = float(estimates.mean())
  spread = math.sqrt(estimates.var(axis=1, ddof=1).mean() / disjoint)
  return student_interval(mean, spread, disjoint - 1)


class Reservoir:
  """A uniform random sample of fixed size of features that arrive in batches.

  All subsets of `size` of the features added so far are equally probable.

  Args:
    size: size of the sample, at least 1.
    seed: seed of the choice.

  Raises:
    ValueError: the size is less than 1.

  References:
    Vitter, Random Sampling with a Reservoir, ACM Transactions on Mathematical Software
    11, 1985, algorithm R.
  """

  def __init__(self, size: int, *, seed: int = 0):
    if size < 1:
      raise ValueError(f"size must be at least 1, not {size}.")
    self.count = 0  # of features added
    self._size = size
    self._draw = np.random.default_rng(seed)
    self._kept: np.ndarray | None = None

  def add(self, features: ArrayLike) -> None:
    """Adds a batch `[N, D]`, any N; the first batch sets D and the type."""
    features = check_features(features, "features")
    if self._kept is None:
      self._kept = np.empty((self._size, features.shape[1]), features.dtype)
    check_sizes(self._kept.shape[1], features.shape[1])
    positions = np.arange(self.count, self.count + len(features))
    places = self._draw.integers(0, positions + 1)
    places = np.where(positions < self._size, positions, places)
    kept = places < self._size
    self._kept[places[kept]] = features[kept]  # the last feature of a position stays
    self.count += len(features)

  @property
  def features(self) -> np.ndarray:
    """A copy of the sample, `[min(size, count), D]`, in arbitrary order."""
    if self._kept is None:
      raise ValueError("The reservoir is empty: add features first.")
    return self._kept[: self.count].copy()


def check_features(features: ArrayLike, name: str) -> np.ndarray:
  """Returns the features as an array; raises ValueError unless they are `[N, D]`."""
  features = np.asarray(features)
  if features.ndim != 2 or not features.shape[1]:
    raise ValueError(f"{name} must be [N, D], not of shape {features.shape}.")
  return features


def check_sizes(first: int, second: int) -> None:
  """Raises ValueError unless the two feature sizes are equal."""
  if first != second:
    raise ValueError(f"Features must be of one size, not {first} and {second}.")


def _factor(covariance):
  """Returns F with F F^T = covariance, without directions of zero variance.

  Eigenvalues that are rounding errors, 1e-16 of the largest, would have roots of 1e-8.
  """
  values, vectors = np.linalg.eigh(covariance)
  kept = values > values[-1] * len(values) * np.finfo(values.dtype).eps
  return vectors[:, kept] * np.sqrt(values[kept])


def _mmd2(x, y):
  """Unbiased MMD^2 of two subsets: pairs of an example with itself are left out."""
  x, y = x.astype(np.float64), y.astype(np.float64)
  with np.errstate(invalid="ignore", over="ignore"):  # gives NaN
    within = [
      (_kernel_sum(z, z) - _self_sum(z)) / (len(z) * (len(z) - 1)) for z in (x, y)
    ]
    return sum(within) - 2 * _kernel_sum(x, y) / (len(x) * len(y))


def _kernel_sum(x, y):
  rows, total = max(1, _KERNEL_VALUES // len(y)), 0.0
  for i in range(0, len(x), rows):
    base = x[i : i + rows] @ y.T / x.shape[1] + 1
    total += np.vdot(base, base * base)
  return total


def _self_sum(x):
  return ((np.square(x).sum(axis=1) / x.shape[1] + 1) ** 3).sum()
