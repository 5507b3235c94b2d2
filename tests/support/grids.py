"""Photographs, holes and grids, and the energy of a grid in float64."""

import numpy as np
from scipy import ndimage
from skimage import data

SIDE = 96


def photographs():
  """Eight crops of photographs, `[8, SIDE, SIDE, 3]`."""
  pictures = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
  crops = []
  for picture in pictures:
    for share in (2, 3):
      top, left = ((n - SIDE) // share for n in picture.shape[:2])
      crops.append(picture[top : top + SIDE, left : left + SIDE] / np.float32(255))
  return np.stack(crops)


def holes():
  """Ellipses and pairs of rectangles, `[8, SIDE, SIDE, 1]`."""
  y, x = np.mgrid[:SIDE, :SIDE]
  found = []
  for i in range(4):
    ellipse = ((y - 40 - 3 * i) / (25 + 3 * i)) ** 2 + ((x - 50) / (38 - 2 * i)) ** 2
    first = np.maximum(abs(y - 30) / (20 + i), abs(x - 33 - i) / 28)
    second = np.maximum(abs(y - 60) / 25, abs(x - 70) / 17)
    found += [ellipse, np.minimum(first, second)]
  return (np.stack(found)[..., None] < 1).astype(np.float32)


def checkerboard(period, offset=(0, 0)):
  """A checkerboard of cells of period / 2 pixels, +1 and -1, `[1, SIDE, SIDE, 1]`."""
  y, x = (np.mgrid[:SIDE, :SIDE] + np.reshape(offset, (2, 1, 1))) // (period // 2)
  return (1 - 2 * ((x + y) % 2))[None, :, :, None].astype(np.float32)


def energies(image, region, period):
  """The formula of `losses.grid.grid_energies`, float64 with loops, for one image.

  Returns the ratio of the energies, each with the variance of rounding.
  """
  half = period // 2
  taps = np.ones(2 * half + 1)
  taps[[0, -1]] = 1 if period % 2 else 0.5
  low = image.astype(float)
  for axis in (0, 1):
    low = ndimage.convolve1d(low, taps / period, axis, mode="mirror")
  residual = image - low
  square = np.ones((2 * half + 1, 2 * half + 1))
  inside = ~ndimage.binary_dilation(~region, square)
  grid = near = freedom = 0.0
  for y, x in np.argwhere(inside):
    found = {}
    for reach in (1, 3):
      rows, columns = (
        range(c - reach * period, c + reach * period + 1, period) for c in (y, x)
      )
      same = [
        residual[i, j]
        for i in rows
        for j in columns
        if 0 <= i < SIDE and 0 <= j < SIDE and inside[i, j]
      ]
      found[reach] = len(same), np.mean(same, axis=0)
    (n3, c3), (n7, c7) = found[1], found[3]
    grid += n7 * np.square(c7).sum()
    near += n3 * np.square(c3 - c7).sum()
    freedom += image.shape[2] * (1 - n3 / n7)
  rounding = 1 / (12 * 255**2)
  pixels = image.shape[2] * inside.sum()
  return (grid / pixels + rounding) / (near / freedom + rounding)
