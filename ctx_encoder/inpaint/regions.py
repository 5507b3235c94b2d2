"""Boxes in a picture, and how they are cropped and scaled for the network.

Hidden pixels have weight zero, so results do not depend on them.
"""

import math
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage


class Box(NamedTuple):
  """A rectangle of pixels; beyond the picture's edge it contains mirrored pixels."""

  top: int
  left: int
  height: int
  width: int

  @property
  def longest(self) -> int:
    return max(self.height, self.width)

  def enlarged(self, margin: int) -> "Box":
    """Returns the box with a margin on all sides."""
    top, left, height, width = self
    return Box(top - margin, left - margin, height + 2 * margin, width + 2 * margin)

  def within(self, height: int, width: int) -> "Box":
    """Returns the intersection with a picture of that size."""
    top, left = max(self.top, 0), max(self.left, 0)
    bottom = min(self.top + self.height, height)
    right = min(self.left + self.width, width)
    return Box(top, left, bottom - top, right - left)

  def relative_to(self, other: "Box") -> "Box":
    """Returns the box in coordinates whose origin is the corner of another box."""
    return self._replace(top=self.top - other.top, left=self.left - other.left)


def holes(mask: np.ndarray, cell: int) -> list[np.ndarray]:
  """Splits a mask into holes that are completed separately.

  The mask is divided into cells; connected cells with hidden pixels are one hole. So
  parts less than about `cell` pixels apart, such as the letters of a word, are one.

  Args:
    mask: bool `[H, W]`, true = hole.
    cell: side of a cell, in pixels.
  Returns:
    (rows, columns) of each hole's pixels, int `[2, N]`, ordered by their topmost cells.
  """
  height, width = mask.shape
  rows, columns = np.nonzero(mask)
  cells = np.zeros((-(-height // cell), -(-width // cell)), bool)
  cells[rows // cell, columns // cell] = True
  labels, count = ndimage.label(cells, np.ones((3, 3), int))
  of_pixel = labels[rows // cell, columns // cell]
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
  """Returns a square around a box with as much context as box on either axis.

  Its side is twice the box's longer side, at least `least`. It is moved to lie within
  the picture, and cropped to the picture if it is larger.

  Args:
    box: the box to contain.
    least: smallest side of the square, in pixels.
    shape: (height, width) of the picture.
    share: if given, the box is centred and takes at most this share of either side,
      even if the result reaches beyond the picture.
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
  """Returns a copy of `[H, W, ...]` cropped to a box, mirrored at the edges."""
  top, left, height, width = box
  if box == box.within(*array.shape[:2]):
    return array[top : top + height, left : left + width].copy()
  rows = _mirrored(top, height, array.shape[0])
  columns = _mirrored(left, width, array.shape[1])
  return array[rows[:, None], columns]


def _mirrored(start: int, length: int, size: int) -> np.ndarray:
  """Returns indices into an axis of `size` pixels, mirrored at its ends."""
  indices = np.arange(start, start + length) % (2 * size)
  return np.minimum(indices, 2 * size - 1 - indices)


def to_network(
  image: np.ndarray, hole: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Scales a crop to the network's size.

  Each pixel is the filter's average over known pixels only (a normalised convolution).
  It is a hole if known pixels have less than half of the filter's weight.

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
  # Pillow's triangle filter widens with the reduction, so it antialiases. It has no
  # negative lobes, which could move an average of few pixels out of their range.
  filter = Image.Resampling.BILINEAR
  return np.asarray(Image.fromarray(plane).resize((size, size), filter))


def from_network(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Scales the network's output, uint8 `[S, S, 3]`, to `[height, width, 3]`."""
  if image.shape[:2] == (height, width):
    return image
  filter = Image.Resampling.BICUBIC
  return np.asarray(Image.fromarray(image).resize((width, height), filter))
