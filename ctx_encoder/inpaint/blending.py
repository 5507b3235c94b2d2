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
  filled, new = image.copy(), generated[hole]
  if how == "poisson":
    difference = generated.astype(np.int16) - image
    new = np.clip(np.rint(new - membrane(difference, hole, known)[hole]), 0, 255)
  filled[hole] = new
  return filled


def changed(old: np.ndarray, new: np.ndarray) -> np.ndarray:
  """Returns where two `[H, W, 3]` differ, bool `[H, W]`."""
  red, green, blue = np.moveaxis(old != new, 2, 0)
  return red | green | blue  # `any(2)` takes seven times as long


def membrane(values: np.ndarray, hole: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Interpolates values over a hole: Laplace's equation with known pixels as boundary.

  Each hole pixel equals the mean of its neighbours (up to four) that are in the hole or
  known. Other neighbours, such as those beyond the picture's edge, are left out, which
  is a free boundary. Solved by conjugate gradients, starting from the solution at half
  the resolution.

  Args:
    values: `[H, W, C]`; read only at known pixels next to the hole.
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
    count = _halved(border)
    solid, inside = count > 0, _halved(hole) > 0
    coarse = np.zeros((*count.shape, values.shape[2]))
    rows, columns = np.nonzero(border)
    np.add.at(coarse, (rows // 2, columns // 2), values[border])
    coarse[solid] /= count[solid][:, None]
    inside &= ~solid
    coarse[inside] = membrane(coarse, inside, solid)[inside]
    used = (inside | solid)[..., None].astype(float)
    start = _doubled(coarse, hole) / np.maximum(_doubled(used, hole), 1e-6)
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
  number = np.zeros(hole.shape, np.int32)  # of the hole's pixels
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
  """Returns the number of true pixels in blocks of 2x2 of bool `[H, W]`, as int."""
  x = np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2))).astype(np.int8)
  return x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]


def _doubled(x: np.ndarray, at: np.ndarray) -> np.ndarray:
  """Returns the pixels `at`, bool `[H, W]`, of `[H / 2, W / 2, C]` at twice the size.

  Interpolated bilinearly: `[N, C]`.
  """
  rows, columns = np.nonzero(at)
  near, far = zip(*map(_neighbours, (rows, columns), x.shape), strict=False)
  left, right = (
    (3 * x[near[0], column] + x[far[0], column]) / 4 for column in (near[1], far[1])
  )
  return (3 * left + right) / 4


def _neighbours(index: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the nearest and second nearest of `size` pixels of half the resolution."""
  return index // 2, np.clip(index // 2 + 2 * (index % 2) - 1, 0, size - 1)
