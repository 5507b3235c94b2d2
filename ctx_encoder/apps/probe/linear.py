"""Linear probe: how well a linear classifier of features separates classes.

Multinomial logistic regression on standardised features, in float64. The weight penalty
is chosen on a part of the training examples.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

PENALTIES = tuple(10.0**power for power in range(2, -5, -1))
_HELD_OUT = 0.2  # share of the training examples that the penalty is chosen on


class Linear(NamedTuple):
  """A linear classifier of standardised features.

  mean, scale: `[D]`, mean and standard deviation of the features it was fitted to.
  weights, bias: `[D, K]` and `[K]`.
  """

  mean: np.ndarray
  scale: np.ndarray
  weights: np.ndarray
  bias: np.ndarray

  def scores(self, features: np.ndarray) -> np.ndarray:
    """Returns the logits of `K` classes, `[N, K]`, of features `[N, D]`."""
    return (features - self.mean) / self.scale @ self.weights + self.bias


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
  """A fitted probe and its test results.

  Attributes:
    linear: the classifier.
    penalty: the one chosen, of `PENALTIES`.
    correct: bool `[T]`, whether each test example was classified correctly.
  """

  linear: Linear
  penalty: float
  correct: np.ndarray


def probe(
  features: np.ndarray,
  labels: np.ndarray,
  test: np.ndarray,
  *,
  seed: int = 0,
  penalties: Sequence[float] = PENALTIES,
) -> Probe:
  """Fits a classifier to the training examples and tests it on the others.

  The penalty is the one with the lowest cross-entropy on a fifth of the training
  examples, fitted to the rest; with it the classifier is fitted to all of them.

  Args:
    features: `[N, D]`.
    labels: int `[N]` in [0, K), each class at least twice among the training examples.
    test: bool `[N]`, True for the test examples; see `stratified`.
    seed: of the choice of that fifth.
    penalties: candidates, descending.
  """
  count = int(labels.max()) + 1
  train, known = features[~test], labels[~test]
  held = stratified(known, _HELD_OUT, seed)
  tried = fit(train[~held], known[~held], count, penalties)
  errors = [cross_entropy(one.scores(train[held]), known[held]) for one in tried]
  penalty = penalties[int(np.argmin(errors))]
  (linear,) = fit(train, known, count, [penalty])
  predicted = linear.scores(features[test]).argmax(axis=1)
  return Probe(linear, penalty, predicted == labels[test])


def fit(
  features: np.ndarray, labels: np.ndarray, count: int, penalties: Sequence[float]
) -> list[Linear]:
  """Returns for each penalty the classifier that minimises a convex loss, by L-BFGS.

  mean_i cross_entropy(x_i W + b, y_i) + penalty / 2 * ||W||^2, where x are the features
  with mean 0 and standard deviation 1; constant features become 0.

  Args:
    features: `[N, D]`.
    labels: int `[N]` in [0, count).
    count: number of classes, K.
    penalties: each above 0, as at 0 the minimum may be at infinity. Every fit starts
      from the one before, which is fastest in descending order.
  """
  exact = features.astype(np.float64)
  mean, scale = exact.mean(axis=0), exact.std(axis=0)
  # The deviation of a constant feature is rounding error.
  scale = np.where(scale > 1e-9 * np.abs(mean), scale, np.inf)
  x, basis = (exact - mean) / scale, None
  if x.shape[1] > x.shape[0]:  # the minimum lies in the span of the examples
    basis, triangle = np.linalg.qr(x.T)
    x = triangle.T
  flat, found = np.zeros((x.shape[1] + 1) * count), []
  for penalty in penalties:
    flat = _minimize(x, labels, count, penalty, flat)
    *weights, bias = flat.reshape(-1, count)
    weights = np.array(weights) if basis is None else basis @ weights
    found.append(Linear(mean, scale, weights, bias))
  return found


def _minimize(
  x: np.ndarray, labels: np.ndarray, count: int, penalty: float, start: np.ndarray
) -> np.ndarray:
  """Returns the minimum of the loss of `fit`: weights and bias, `[(D + 1) * K]`."""
  targets = np.eye(count)[labels]

  def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
    both = flat.reshape(-1, count)
    weights, bias = both[:-1], both[-1]
    logits = x @ weights + bias
    error = (special.softmax(logits, axis=1) - targets) / len(x)
    slope = np.vstack([x.T @ error + penalty * weights, error.sum(axis=0)])
    value = cross_entropy(logits, labels) + penalty / 2 * np.sum(np.square(weights))
    return value, slope.ravel()

  options = {"maxiter": 1000, "gtol": 1e-5, "ftol": 1e-11}
  return optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
  """Returns the mean cross-entropy of logits `[N, K]` against classes `[N]`."""
  right = logits[np.arange(len(labels)), labels]
  return float(np.mean(special.logsumexp(logits, axis=1) - right))


def stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
  """Chooses a share of each class at random: at least one example, and not all.

  Args:
    labels: int `[N]`, each class at least twice.
    fraction: the share, in (0, 1).
    seed: the same labels and seed give the same choice.

  Returns:
    bool `[N]`.
  """
  rng = np.random.default_rng(seed)
  chosen = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    members = rng.permutation(np.flatnonzero(labels == label))
    count = min(max(1, round(fraction * len(members))), len(members) - 1)
    chosen[members[:count]] = True
  return chosen


def majority(labels: np.ndarray, test: np.ndarray) -> np.ndarray:
  """Returns bool `[T]`: whether test examples have the most frequent training class."""
  return labels[test] == np.bincount(labels[~test]).argmax()
