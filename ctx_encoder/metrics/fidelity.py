"""How well completed images pass for real ones, by the features of a network.

The caller computes the features, `[N, D]` of any real type. As for FID and KID, results
are comparable only for the same network, layer and number of images.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ctx_encoder.metrics.distributions import check_features, check_sizes


class PrecisionRecall(NamedTuple):
  """Share of completed images like the real ones, and of real ones like those."""

  precision: float
  recall: float


class DiscriminativeScores(NamedTuple):
  """U-IDS in [0, 0.5] as a rule, and P-IDS in [0, 1]; higher is better for both."""

  unpaired: float
  paired: float


def precision_recall(
  real: ArrayLike, completed: ArrayLike, *, neighbours: int = 3
) -> PrecisionRecall:
  """Improved precision and recall of two sets of images.

  Precision is the share of completed images that are nearer to some real image than
  that one's k-th neighbour among the real images; recall the same with the sets
  exchanged. Low precision means implausible images, low recall missing variety.

  Args:
    real: features `[N, D]` of real images.
    completed: features `[M, D]` of completed images; compare results of equal N and M.
    neighbours: k, less than N and M.

  Raises:
    ValueError: the features are not `[N, D]` of one D, or there are too few.

  References:
    Kynkäänniemi et al., Improved Precision and Recall Metric for Assessing Generative
    Models, NeurIPS 2019, eq. 1 and 2 (the paper and here k = 3).
  """
  real, completed = _checked(real, completed)
  if not 0 < neighbours < min(len(real), len(completed)):
    raise ValueError(
      f"neighbours must be from 1 to less than the {min(len(real), len(completed))}"
      f" images of the smaller set, not {neighbours}."
    )
  between = _distances(real, completed)
  radii = [
    np.partition(_distances(x, x), neighbours, axis=1)[:, neighbours]
    for x in (real, completed)
  ]
  return PrecisionRecall(
    float((between < radii[0][:, None]).any(axis=0).mean()),
    float((between < radii[1][None]).any(axis=1).mean()),
  )


def discriminative_scores(
  real: ArrayLike, completed: ArrayLike, *, penalty: float = 1.0
) -> DiscriminativeScores:
  """Unpaired and paired inception discriminative scores (U-IDS, P-IDS).

  A linear support vector machine is fitted to tell completed images from real ones:
  min over w, b of |w|^2 / 2 + b^2 / 2 + C sum_i max(0, 1 - y_i (w.x_i + b))^2. U-IDS is
  the share of images that it misclassifies, P-IDS the share of completed images that it
  rates more real than their originals.

  Args:
    real: features `[N, D]` of the original images.
    completed: features `[N, D]` of the completed images, in the same order.
    penalty: C, above 0.

  Raises:
    ValueError: the features are not `[N, D]` of one N and D.

  References:
    Zhao et al., Large Scale Image Completion via Co-Modulated Generative Adversarial
    Networks, ICLR 2021, section 4 (Inception-v3, C = 1).
  """
  from scipy.optimize import minimize

  real, completed = _checked(real, completed)
  if len(real) != len(completed) or not len(real):
    raise ValueError(
      f"Each completed image needs its original: {len(completed)} and {len(real)}."
    )
  x = np.concatenate([real, completed])
  x = np.concatenate([x, np.ones((len(x), 1))], axis=1)  # the last weight is b
  sign = np.repeat([1.0, -1.0], len(real))

  def objective(w):
    short = np.maximum(0, 1 - sign * (x @ w))
    value = w @ w / 2 + penalty * short @ short
    return value, w - 2 * penalty * (sign * short) @ x

  start, limits = np.zeros(x.shape[1]), {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9}
  fit = minimize(objective, start, jac=True, method="L-BFGS-B", options=limits)
  rating = x @ fit.x
  of_real, of_completed = np.split(rating, 2)
  return DiscriminativeScores(
    float(np.mean(np.where(sign > 0, rating <= 0, rating > 0))),
    float(np.mean(of_completed > of_real)),
  )


def _checked(real, completed):
  """Returns both sets of features in float64."""
  real = check_features(real, "real").astype(np.float64)
  completed = check_features(completed, "completed").astype(np.float64)
  check_sizes(real.shape[1], completed.shape[1])
  return real, completed


def _distances(x, y):
  """Returns Euclidean distances `[len(x), len(y)]`."""
  from scipy.spatial.distance import cdist

  return cdist(x, y)
