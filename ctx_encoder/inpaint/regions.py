"""Which part of a picture a network is shown: boxes, and how they are cut and scaled.

Nothing here sees what lies under a hole: hidden pixels count as zero with weight zero.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage


class Box(NamedTuple):
  """A rectangle of pixels; it may reach beyond the picture, which is mirrored there."""

  top: int
  left: int
  height: int
  width: int

  @property
  def longest(self) -> int:
    return max(self.height, self.width)

  def enlarged(self, margin: int) -> "Box":
    """Returns the box with a margin all around."""
    top, left, height, width = self
    return Box(top - margin, left - margin, height + 2 * margin, width + 2 * margin)

  def within(self, height: int, width: int) -> "Box":
    """Returns what of it lies within a picture of that size."""
    top, left = max(self.top, 0), max(self.left, 0)
    bottom = min(self.top + self.height, height)
    right = min(self.left + self.width, width)
    return Box(top, left, bottom - top, right - left)

  def seen_from(self, other: "Box") -> "Box":
    """Returns the same box, places being counted from another one's corner."""
    return self._replace(top=self.top - other.top, left=self.left - other.left)


def holes(mask: np.ndarray, reach: int) -> list[np.ndarray]:
  """Splits a mask into holes that are completed one by one.

  Parts that are less than about `reach` pixels apart are one hole: the strokes of a
  scribble, the letters of a word.

  Args:
    mask: bool `[H, W]`, true = hole.
    reach: side of the cells of which neighbours belong together, in pixels.
  Returns:
    Of every hole (rows, columns) of its pixels, int `[2, N]`, in the order of their
    topmost cells.
  """
  height, width = mask.shape
  rows, columns = np.nonzero(mask)
  cells = np.zeros((-(-height // reach), -(-width // reach)), bool)
  cells[rows // reach, columns // reach] = True
  labels, count = ndimage.label(cells, np.ones((3, 3), int))
  of_pixel = labels[rows // reach, columns // reach]
  order = np.argsort(of_pixel, kind="stable")
  ends = np.cumsum(np.bincount(of_pixel, minlength=count + 1))[1:]
  pixels = np.stack([rows[order], columns[order]])
  return np.split(pixels, ends[:-1], axis=1)


def box_of(pixels: np.ndarray) -> Box:
  """Returns the smallest box around (rows, columns), int `[2, N]`."""
  top, left = pixels.min(1)
  bottom, right = pixels.max(1) + 1
  return Box(int(top), int(left), int(bottom - top), int(right - left))


def around(
  box: Box, least: int, shape: tuple[int, int], share: float | None = None
) -> Box:
  """Returns a square with room for as much context as hole on either axis.

  Its side is the larger of `least` and twice the box. It is moved into the picture, and
  where it is too large for that it is the rectangle that the picture leaves of it.

  Args:
    box: what it is to contain.
    least: the least side, in pixels.
    shape: (height, width) of the picture.
    share: the box stays in the centre and takes at most this share of either side,
      however far that reaches beyond the picture.
  """
  if share is None:
    side = max(least, 2 * box.longest)
    height, width = min(side, shape[0]), min(side, shape[1])
  else:
    height = width = max(least, math.ceil(box.longest / share))
    if height * width > 4 * math.prod(shape):  # mostly mirrored
      height = max(least, math.ceil(box.height / share))
      width = max(least, math.ceil(box.width / share))
  top = box.top + (box.height - height) // 2
  left = box.left + (box.width - width) // 2
  if share is None:
    top = min(max(top, 0), shape[0] - height)
    left = min(max(left, 0), shape[1] - width)
  return Box(top, left, height, width)


def cut(array: np.ndarray, box: Box) -> np.ndarray:
  """Returns the part of `[H, W, ...]` in a box, mirrored where it reaches beyond."""
  rows = _mirrored(box.top, box.height, array.shape[0])
  columns = _mirrored(box.left, box.width, array.shape[1])
  return array[rows[:, None], columns]


def _mirrored(start: int, length: int, size: int) -> np.ndarray:
  places = np.arange(start, start + length) % (2 * size)
  return np.minimum(places, 2 * size - 1 - places)


def shrunk(
  image: np.ndarray, hole: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Scales a part of a picture to what the network takes.

  Every pixel is the average of the known pixels alone under the filter (a normalised
  convolution), and a hole where these are less than half of it.

  Args:
    image: uint8 `[H, W, 3]`.
    hole: bool `[H, W]`.
    size: side of the result.
  Returns:
    uint8 `[size, size, 3]` and bool `[size, size]`.
  """
  if image.shape[:2] == (size, size):
    return np.where(hole[..., None], np.uint8(0), image), hole
  known = (~hole).astype(np.float32)
  share = _scaled(known, size)
  colors = [
    _scaled(known * image[..., channel], size) / np.maximum(share, 1e-3)
    for channel in range(3)
  ]
  small = np.clip(np.rint(np.stack(colors, 2)), 0, 255).astype(np.uint8)
  return small, share < 0.5


def _scaled(plane: np.ndarray, size: int) -> np.ndarray:
  # The triangle filter grows with the reduction, hence antialiases, and has no negative
  # lobes, with which an average of few known pixels could leave their range.
  filter = Image.Resampling.BILINEAR
  return np.asarray(Image.fromarray(plane).resize((size, size), filter))


def enlarged(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Scales uint8 `[S, S, 3]` to `[height, width, 3]`."""
  if image.shape[:2] == (height, width):
    return image
  filter = Image.Resampling.BICUBIC
  return np.asarray(Image.fromarray(image).resize((width, height), filter))
