"""Precision and recall against loops, U-IDS and P-IDS against scikit-learn."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from ctx_encoder import metrics

DRAW = np.random.default_rng(0)
REAL = DRAW.normal(size=(40, 6))
COMPLETED = np.concatenate([REAL[:25] + 0.3 * DRAW.normal(size=(25, 6)), REAL[25:] + 2])


def inside(points, centres, neighbours):
  """Share of the points within the radius of some centre."""
  count = 0
  for point in points:
    for centre in centres:
      radius = sorted(np.linalg.norm(other - centre) for other in centres)[neighbours]
      if np.linalg.norm(point - centre) < radius:
        count += 1
        break
  return count / len(points)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_precision_and_recall(neighbours):
  completed = COMPLETED[:33].astype(np.float32)
  found = metrics.precision_recall(REAL, completed, neighbours=neighbours)
  assert found.precision == inside(completed, REAL, neighbours)
  assert found.recall == inside(REAL, completed, neighbours)
  assert 0 < found.precision < 1
  assert 0 < found.recall < 1


def test_they_are_those_of_the_published_package():
  prdc = pytest.importorskip("prdc")
  expected = prdc.compute_prdc(REAL, COMPLETED, 3)
  found = metrics.precision_recall(REAL, COMPLETED)
  assert found == (expected["precision"], expected["recall"])


def test_a_few_copies_are_precise_and_recall_little():
  copies = REAL[:1] + 1e-3 * DRAW.normal(size=(10, 6))
  assert metrics.precision_recall(REAL, copies) == (1, 1 / 40)
  assert metrics.precision_recall(REAL, REAL + 100) == (0, 0)


@pytest.mark.parametrize("penalty", [1.0, 0.05])
def test_discriminative_scores_are_those_of_scikit_learn(penalty):
  real, completed = REAL.astype(np.float32), COMPLETED.astype(np.float32)
  inputs, labels = np.concatenate([REAL, COMPLETED]), np.repeat([1, 0], 40)
  machine = LinearSVC(dual=False, C=penalty, tol=1e-8).fit(inputs, labels)
  paired = machine.decision_function(COMPLETED) > machine.decision_function(REAL)
  found = metrics.discriminative_scores(real, completed, penalty=penalty)
  assert found.unpaired == pytest.approx(1 - machine.score(inputs, labels))
  assert found.paired == pytest.approx(paired.mean())
  assert 0 < found.unpaired < 0.5
  assert 0 < found.paired < 1


def test_discriminative_scores_of_equal_and_of_different_sets():
  assert metrics.discriminative_scores(REAL, REAL) == (0.5, 0)
  shuffled = DRAW.permutation(REAL)
  unpaired, paired = metrics.discriminative_scores(REAL, shuffled)
  assert unpaired == pytest.approx(0.5)
  assert paired == 0  # nothing tells them apart, so all ratings are equal
  assert metrics.discriminative_scores(REAL, REAL + 100) == (0, 0)


def test_wrong_arguments_are_refused():
  with pytest.raises(ValueError, match="less than the 3 images of the smaller set"):
    metrics.precision_recall(REAL, COMPLETED[:3])
  with pytest.raises(ValueError, match="of one size, not 6 and 5"):
    metrics.precision_recall(REAL, COMPLETED[:, :5])
  with pytest.raises(ValueError, match=r"completed must be \[N, D\]"):
    metrics.discriminative_scores(REAL, COMPLETED[0])
  with pytest.raises(ValueError, match="needs its original: 3 and 40"):
    metrics.discriminative_scores(REAL, COMPLETED[:3])
