"""Putting what was painted into a picture: as it is, feathered, or with its gradients.

All of it comes from the visible pixels and from what was painted, never from what the
hole hides.
"""

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import linalg

BLENDS = ("none", "feather", "poisson")


def blend(
  image: np.ndarray,
  painted: np.ndarray,
  hole: np.ndarray,
  known: np.ndarray,
  *,
  how: str,
  ring: int,
) -> np.ndarray:
  """Returns an image whose hole is filled.

  Args:
    image: uint8 `[H, W, 3]`.
    painted: uint8 `[H, W, 3]`; of the hole and, unless `how` is "none", of the ring.
    hole: bool `[H, W]`, what is to be filled.
    known: bool `[H, W]`, pixels that hide nothing. Some may be neither in this hole
      nor known: those of another hole.
    how: "none" puts the painted pixels into the hole and leaves all others as they are.
      "feather" mixes the known pixels of the ring with painted ones, the fewer the
      farther from the hole. "poisson" leaves the known pixels as they are and corrects
      the painted ones: their gradients stay, and they meet the known pixels at the
      border (Pérez, Gangnet and Blake, Poisson Image Editing, SIGGRAPH 2003).
    ring: width of what was painted around the hole, in pixels.
  Returns:
    uint8 `[H, W, 3]`; pixels of other holes are those of `image`.
  """
  if how == "feather":
    distance = ndimage.distance_transform_edt(~hole)
    share = np.clip(1 - distance / (ring + 1), 0, 1) * (hole | known)
    mixed = image + share[..., None] * (painted.astype(np.float64) - image)
    return np.rint(mixed).astype(np.uint8)
  if how == "poisson":
    difference = painted.astype(np.float64) - image
    painted = np.clip(np.rint(painted - membrane(difference, hole, known)), 0, 255)
  return np.where(hole[..., None], painted, image).astype(np.uint8)


def membrane(values: np.ndarray, hole: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Spans values over a hole: Laplace's equation, with the known pixels as border.

  Each pixel of the hole is the average of its up to four neighbours, those in the hole
  or known; elsewhere, at the picture's edge for one, the membrane is free. It is solved
  by conjugate gradients, from the solution at half the size.

  Args:
    values: `[H, W, C]` float; read at known pixels next to the hole only.
    hole: bool `[H, W]`.
    known: bool `[H, W]`.
  Returns:
    `[H, W, C]` float64; 0 outside the hole, and where no known pixel is in reach.
  """
  result = np.zeros(values.shape)
  if not hole.any():
    return result
  start = np.zeros((np.count_nonzero(hole), values.shape[2]))
  if len(start) > 1024:
    border = known & ndimage.binary_dilation(hole)
    share = _halved(border[..., None].astype(float))
    coarse = _halved(np.where(border[..., None], values, 0.0)) / np.maximum(share, 1)
    solid = share[..., 0] > 0
    inside = _halved(hole[..., None].astype(float))[..., 0] > 0
    coarse += membrane(coarse, inside & ~solid, solid)
    used = (inside | solid)[..., None].astype(float)
    height, width = hole.shape
    start = _doubled(coarse * used) / np.maximum(_doubled(used), 1e-6)
    start = start[:height, :width][hole]
  matrix, right = _system(values, hole, known)
  for channel in range(values.shape[2]):
    # As good as within a level of 255; the solution at half the size is no better.
    result[hole, channel] = linalg.cg(
      matrix,
      right[:, channel],
      start[:, channel],
      rtol=0.0,
      atol=1e-2 * np.sqrt(len(start)),
      maxiter=2000,
    )[0]
  return result


def _system(
  values: np.ndarray, hole: np.ndarray, known: np.ndarray
) -> tuple[sparse.csr_matrix, np.ndarray]:
  """Returns the equations of the hole's pixels, (matrix `[N, N]`, right `[N, C]`)."""
  count = np.count_nonzero(hole)
  number = np.full(hole.shape, -1)
  number[hole] = np.arange(count)
  degree, right = np.zeros(count), np.zeros((count, values.shape[2]))
  rows, columns = [], []
  for axis, backward in ((0, False), (0, True), (1, False), (1, True)):
    one, other = [slice(None)] * 2, [slice(None)] * 2
    one[axis], other[axis] = slice(None, -1), slice(1, None)
    if backward:
      one, other = other, one
    here, there = tuple(one), tuple(other)
    joined, fixed = hole[here] & hole[there], hole[here] & known[there]
    rows.append(number[here][joined])
    columns.append(number[there][joined])
    degree[rows[-1]] += 1
    degree[number[here][fixed]] += 1
    right[number[here][fixed]] += values[there][fixed]
  row, column = np.concatenate(rows), np.concatenate(columns)
  neighbours = sparse.csr_matrix((np.ones(len(row)), (row, column)), (count, count))
  return sparse.csr_matrix(sparse.diags(degree) - neighbours), right


def _halved(x: np.ndarray) -> np.ndarray:
  """Returns sums over 2x2 pixels of `[H, W, C]`, padded with zeros."""
  x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)))
  height, width, channels = x.shape
  return x.reshape(height // 2, 2, width // 2, 2, channels).sum((1, 3))


def _doubled(x: np.ndarray) -> np.ndarray:
  """Returns `[H, W, C]` at twice the size, bilinearly."""
  for axis in (0, 1):
    x = np.moveaxis(x, axis, 0)
    padded = np.concatenate([x[:1], x, x[-1:]])
    pairs = np.stack([3 * x + padded[:-2], 3 * x + padded[2:]], 1) / 4
    x = np.moveaxis(pairs.reshape(-1, *x.shape[1:]), 0, axis)
  return x
