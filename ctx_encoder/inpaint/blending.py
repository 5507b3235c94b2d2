"""Blends generated pixels into a picture: pasting, feathering, Poisson blending.

Results depend only on known and generated pixels, never on the pixels under a hole.
"""

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse import linalg

BLENDS = ("none", "feather", "poisson")


def blend(
  image: np.ndarray,
  generated: np.ndarray,
  hole: np.ndarray,
  known: np.ndarray,
  *,
  how: str,
  ring: int,
) -> np.ndarray:
  """Fills a hole with generated pixels.

  Args:
    image: uint8 `[H, W, 3]`.
    generated: uint8 `[H, W, 3]`, valid in the hole and, unless `how` is "none", in the
      ring around it.
    hole: bool `[H, W]`, the pixels to fill.
    known: bool `[H, W]`, the known pixels. Pixels of other holes are in neither.
    how: "none" pastes the generated pixels. "feather" also mixes them into the known
      pixels of the ring, with a weight that falls with the distance from the hole.
      "poisson" preserves the gradients of the generated pixels and shifts their colours
      to match the known pixels at the border.
    ring: width of the generated ring around the hole, in pixels.
  Returns:
    uint8 `[H, W, 3]`; equal to `image` in other holes.
  References: Pérez, Gangnet and Blake, Poisson Image Editing, SIGGRAPH 2003.
  """
  if how == "feather":
    distance = ndimage.distance_transform_edt(~hole)
    share = np.clip(1 - distance / (ring + 1), 0, 1) * (hole | known)
    mixed = image + share[..., None] * (generated.astype(np.float64) - image)
    return np.rint(mixed).astype(np.uint8)
  if how == "poisson":
    difference = generated.astype(np.float64) - image
    generated = np.clip(np.rint(generated - membrane(difference, hole, known)), 0, 255)
  return np.where(hole[..., None], generated, image).astype(np.uint8)


def membrane(values: np.ndarray, hole: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Interpolates values over a hole: Laplace's equation with known pixels as boundary.

  Each hole pixel equals the mean of its neighbours (up to four) that are in the hole or
  known. Other neighbours, such as those beyond the picture's edge, are left out, which
  is a free boundary. Solved by conjugate gradients, starting from the solution at half
  the resolution.

  Args:
    values: `[H, W, C]` float; read only at known pixels next to the hole.
    hole: bool `[H, W]`.
    known: bool `[H, W]`.
  Returns:
    `[H, W, C]` float64; 0 outside the hole and in parts of it without known neighbours.
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
    # A residual of 0.01 per pixel leaves an error below one of 255 levels.
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
  """Returns the linear system of the hole's pixels: matrix `[N, N]`, right `[N, C]`."""
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
  """Returns sums over blocks of 2x2 pixels of `[H, W, C]`, padded with zeros."""
  x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2), (0, 0)))
  height, width, channels = x.shape
  return x.reshape(height // 2, 2, width // 2, 2, channels).sum((1, 3))


def _doubled(x: np.ndarray) -> np.ndarray:
  """Returns `[H, W, C]` at twice the size, interpolated bilinearly."""
  for axis in (0, 1):
    x = np.moveaxis(x, axis, 0)
    padded = np.concatenate([x[:1], x, x[-1:]])
    pairs = np.stack([3 * x + padded[:-2], 3 * x + padded[2:]], 1) / 4
    x = np.moveaxis(pairs.reshape(-1, *x.shape[1:]), 0, axis)
  return x
