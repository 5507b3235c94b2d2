"""Nearest patches in the training set: a baseline, and a check of memorisation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_REDUCED = 4  # pictures are compared at a quarter of their side
_MARGIN = 16  # pixels around the hole that must agree


def make_nearest(
  training: np.ndarray, *, chunk: int = 256
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
  """Returns a baseline that copies the training patch whose surroundings fit best.

  The known pixels within 16 of the hole are compared with every training picture, at
  all positions 4 pixels apart where the hole's bounding box and these surroundings fit
  in, by squared error at a quarter of the resolution. The pixels of the best position
  fill the hole.

  Args:
    training: uint8 `[N, S, S, 3]`; 4 divides S.
    chunk: pictures compared at a time; it does not change the result.

  Returns:
    A function of image uint8 `[S, S, 3]` and mask bool `[S, S]` to the completed image.

  References:
    Hays and Efros, Scene Completion Using Millions of Photographs, SIGGRAPH 2007;
    Pathak et al., Context Encoders, CVPR 2016, table 1, whose baseline compares HOG.
  """
  size = training.shape[1]
  if len(training) == 0 or size % _REDUCED:
    raise ValueError(
      f"Training pictures must be [N, S, S, 3] with N > 0 and S a multiple of"
      f" {_REDUCED}, not {list(training.shape)}."
    )
  small = _reduce(training.astype(np.float32))

  def complete(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    if not mask.any():
      return image.copy()
    (top, bottom), (left, right) = _window(mask, size)
    hole = mask[top:bottom, left:right]
    known = _reduce(1 - hole[None, ..., None].astype(np.float32))
    # A reduced pixel counts if all its pixels are known.
    weight = (known == 1).astype(np.float32)
    wanted = _reduce(image[None, top:bottom, left:right].astype(np.float32))
    best = (np.inf, 0, 0, 0)
    for start in range(0, len(small), chunk):
      part = small[start : start + chunk]
      filled = np.resize(part, (chunk, *part.shape[1:]))
      errors = np.asarray(_errors(filled, wanted[0], weight[0]))[: len(part)]
      where = np.unravel_index(errors.argmin(), errors.shape)
      if errors[where] < best[0]:
        number, y, x = map(int, where)
        best = (float(errors[where]), start + number, y * _REDUCED, x * _REDUCED)
    _, number, y, x = best
    patch = training[number, y : y + bottom - top, x : x + right - left]
    completed = image.copy()
    completed[top:bottom, left:right][hole] = patch[hole]
    return completed

  return complete


def patch_distances(
  patches: np.ndarray, training: np.ndarray, *, chunk: int = 64
) -> np.ndarray:
  """Returns the distance of each patch to its nearest training patch.

  The root mean squared difference at a quarter of the resolution, minimised over all
  training pictures and all positions 4 pixels apart. Completions of a generator that
  copies its training pictures have smaller distances than the true patches.

  Args:
    patches: uint8 `[M, h, w, 3]`, the pixels of completed or true pictures in the
      hole's bounding box; 4 divides h and w.
    training: uint8 `[N, S, S, 3]`.
    chunk: training pictures compared at a time; it does not change the result.

  Returns:
    `[M]` float32, in units of 0 to 255.
  """
  small = _reduce(training.astype(np.float32))
  found = []
  for patch in _reduce(patches.astype(np.float32)):
    weight = np.ones((*patch.shape[:2], 1), np.float32)
    lowest = np.inf
    for start in range(0, len(small), chunk):
      part = small[start : start + chunk]
      filled = np.resize(part, (chunk, *part.shape[1:]))
      errors = np.asarray(_errors(filled, patch, weight))[: len(part)]
      lowest = min(lowest, float(errors.min()))
    found.append(np.sqrt(max(lowest, 0) / patch.size))
  return np.asarray(found, np.float32)


@jax.jit
def _errors(pictures, wanted, weight):
  """Sums weight * (picture - wanted)^2 at every position, by correlations."""
  pictures, wanted = pictures / 255, wanted / 255

  def correlate(images, kernel):
    return jax.lax.conv_general_dilated(
      images,
      kernel[..., None],
      (1, 1),
      "VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      precision="highest",
    )[..., 0]

  weights = jnp.broadcast_to(weight, wanted.shape)
  squares = correlate(jnp.square(pictures), weights)
  products = correlate(pictures, weights * wanted)
  constant = jnp.sum(weights * jnp.square(wanted))
  return (squares - 2 * products + constant) * 255**2


def _window(mask: np.ndarray, size: int):
  """Returns the rows and columns of the hole with its margin, multiples of 4."""
  limits = []
  for axis in (1, 0):
    (places,) = np.nonzero(mask.any(axis=axis))
    low = max(0, (places[0] - _MARGIN) // _REDUCED * _REDUCED)
    high = min(size, -(-(places[-1] + 1 + _MARGIN) // _REDUCED) * _REDUCED)
    limits.append((int(low), int(high)))
  return limits


def _reduce(images: np.ndarray) -> np.ndarray:
  """Returns the means over blocks of 4x4 pixels."""
  n, h, w, c = images.shape
  blocks = images.reshape(n, h // _REDUCED, _REDUCED, w // _REDUCED, _REDUCED, c)
  return blocks.mean(axis=(2, 4))
