"""How near two sets of images are, by any features of them: FID and KID.

The features are the caller's, `[N, D]`, of any real type and of any network; nothing
here knows of images. All is computed in float64 on the host.
"""

import dataclasses
import math
import statistics
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_KERNEL_VALUES = 2**22  # of a kernel's matrix that are held at once: 32 MB

# Quantiles of Student's t, 97.5 %, where the expansion in `_student` is too short.
_STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
  """Count, mean and scatter of features: all that a Fréchet distance needs of them.

  `np.savez(path, **vars(moments))` keeps those of a data set; `Moments(**arrays)` of
  what `np.load` opens reads them.

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
  """Moments of one batch of features; of none, what changes nothing when merged.

  Any number of batches pass in memory of one with
  `functools.reduce(metrics.merge_moments, map(metrics.moments, batches))`.

  Args:
    features: `[N, D]` real, any N.

  Returns:
    Their moments.

  Raises:
    ValueError: the features are not `[N, D]`.
  """
  features = check_features(features, "features").astype(np.float64)
  count, size = features.shape
  if not count:
    return Moments(0, np.zeros(size), np.zeros((size, size)))
  with np.errstate(invalid="ignore"):  # infinite features give NaN, which is seen
    mean = features.mean(axis=0)
    centered = features - mean
    return Moments(count, mean, centered.T @ centered)


def merge_moments(first: Moments, second: Moments) -> Moments:
  """Moments of two sets of features together, of batches or of processes.

  Scatters add up, and with them N1 N2 / (N1 + N2) d d^T for the distance d of the
  means; no sum of squares is ever formed, so nothing cancels.

  Args:
    first: moments of features `[N1, D]`.
    second: moments of features `[N2, D]`.

  Returns:
    Moments of the N1 + N2 features.

  Raises:
    ValueError: the sizes of the features differ.

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
  """Fréchet distance of two Gaussians, squared, as FID is: 0 where they are equal.

  d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)). Covariances of fewer examples than
  features are allowed. It is biased upwards by few examples: compare distances of
  equal numbers of them only.

  Args:
    first: moments of at least 2 features `[N1, D]`.
    second: moments of at least 2 features `[N2, D]`.

  Returns:
    The distance, in the features' unit squared; NaN where a moment is not finite.

  Raises:
    ValueError: the sizes of the features differ, or there are fewer than 2 examples.

  References:
    Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium, NeurIPS 2017, eq. 6; Dowson and Landau, The Fréchet Distance between
    Multivariate Normal Distributions, Journal of Multivariate Analysis 12, 1982.
  """
  check_sizes(len(first.mean), len(second.mean))
  covariances = [first.covariance, second.covariance]
  if not all(np.isfinite(x).all() for x in (first.mean, second.mean, *covariances)):
    return math.nan
  # With S = F F^T, tr (S1 S2)^(1/2) is the sum of the singular values of F1^T F2: the
  # roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), without the rounding that a root
  # makes of an eigenvalue near 0.
  first_factor, second_factor = map(_factor, covariances)
  overlap = np.linalg.svd(first_factor.T @ second_factor, compute_uv=False).sum()
  means = np.square(first.mean - second.mean).sum()
  distance = means + sum(map(np.trace, covariances)) - 2 * overlap
  return max(float(distance), 0.0)


class KernelDistance(NamedTuple):
  """A kernel distance and its 95 % confidence interval, `low` to `high`."""

  mean: float
  low: float
  high: float


def kernel_distance(
  first: ArrayLike,
  second: ArrayLike,
  *,
  subsets: int = 100,
  subset_size: int | None = None,
  seed: int = 0,
) -> KernelDistance:
  """Kernel distance (KID): the mean of unbiased MMD^2 over random subsets.

  MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y) with k(x, y) = (x.y / D + 1)^3. Its
  expectation does not depend on the number of examples, and is 0 for equal
  distributions, so that estimates below 0 occur.

  Each set is split at random into disjoint subsets, again and again until `subsets`
  pairs are drawn. The interval is mean +- t s / sqrt(n), for the n disjoint pairs of
  one split, their standard deviation s and Student's t of n - 1 degrees: these are
  independent as the many overlapping pairs are not, and the mean over several splits
  varies no more than that over one, which errs on the wide side. The two sets are
  taken for independent: where one holds completions of the other's images, each meets
  its own among N, and the distance is too low by 2 / N of what that adds to the kernel.

  Args:
    first: `[N1, D]` real.
    second: `[N2, D]` real.
    subsets: how many pairs of subsets at most; whole splits of them are drawn.
    subset_size: examples in each; by default 1000, or a tenth of the smaller set where
      that is less.
    seed: of the splits.

  Returns:
    The mean and the interval; NaN where a feature is not finite.

  Raises:
    ValueError: the features are not `[N, D]` of one D, or there are fewer than two
      subsets, of at least 2 examples each.

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
  disjoint = min(subsets, smaller // subset_size)
  draw = np.random.default_rng(seed)
  estimates = np.empty((subsets // disjoint, disjoint))
  for split in estimates:
    orders = [draw.permutation(len(features)) for features in (first, second)]
    for i in range(disjoint):
      x_rows, y_rows = (x[i * subset_size : (i + 1) * subset_size] for x in orders)
      with np.errstate(invalid="ignore", over="ignore"):  # gives NaN, which is seen
        split[i] = _mmd2(first[x_rows], second[y_rows])
  mean = float(estimates.mean())
  spread = math.sqrt(estimates.var(axis=1, ddof=1).mean() / disjoint)
  margin = _student(disjoint - 1) * spread
  return KernelDistance(mean, mean - margin, mean + margin)


def check_features(features: ArrayLike, name: str) -> np.ndarray:
  """Returns the features as an array; raises ValueError unless they are `[N, D]`."""
  features = np.asarray(features)
  if features.ndim != 2 or not features.shape[1]:
    raise ValueError(f"{name} must be [N, D], not of shape {features.shape}.")
  return features


def check_sizes(first: int, second: int) -> None:
  """Raises ValueError unless the features of two sets are of one size."""
  if first != second:
    raise ValueError(f"Features must be of one size, not {first} and {second}.")


def _factor(covariance):
  """Returns F with F F^T = covariance, without the directions that are only rounding.

  An eigenvalue of rounding, 1e-16 of the largest, would be a root of 1e-8.
  """
  values, vectors = np.linalg.eigh(covariance)
  kept = values > values[-1] * len(values) * np.finfo(values.dtype).eps
  return vectors[:, kept] * np.sqrt(values[kept])


def _mmd2(x, y):
  """Unbiased MMD^2 of two subsets: no example is compared with itself."""
  x, y = x.astype(np.float64), y.astype(np.float64)
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


def _student(degrees):
  """Returns the 97.5 % quantile of Student's t; within 0.2 %.

  References: Abramowitz and Stegun, Handbook of Mathematical Functions, eq. 26.7.5.
  """
  if degrees in _STUDENT:
    return _STUDENT[degrees]
  z = statistics.NormalDist().inv_cdf(0.975)
  return (
    z
    + (z**3 + z) / (4 * degrees)
    + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
  )
