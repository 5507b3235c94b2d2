"""The embedded data set: square crops of the landscape photographs."""

import functools
from typing import NamedTuple

import numpy as np

from ctx_encoder.data import landscapes

WIDTH, HEIGHT = 1024, 512  # of every embedded photograph, pixels
SIDES = (HEIGHT, 3 * HEIGHT // 4, HEIGHT // 2)  # of the crops


class Crop(NamedTuple):
  """A square of a photograph, in its pixels."""

  photograph: str
  left: int
  top: int
  side: int


def crops() -> tuple[dict[str, Crop], dict[str, Crop]]:
  """Returns {name: crop} for training and for validation, split by photograph.

  The crops of a photograph have three sizes. Those of one size cover it, overlapping by
  half or a little more.
  """
  training, validation = (
    {
      f"{name}/{side}_{top}_{left}": Crop(name, left, top, side)
      for name in names
      for side in SIDES
      for top in _starts(HEIGHT, side)
      for left in _starts(WIDTH, side)
    }
    for names in landscapes.split()
  )
  return training, validation


def read(crop: Crop) -> np.ndarray:
  """Returns the crop's pixels, uint8 `[side, side, 3]`."""
  photograph, left, top, side = crop
  return _photograph(photograph)[top : top + side, left : left + side]


# Crops are read photograph by photograph, a few threads at a time.
_photograph = functools.lru_cache(maxsize=16)(landscapes.read)


def _starts(length: int, side: int) -> list[int]:
  """Returns where crops start along one axis: evenly, at both ends too."""
  count = 1 + -(-2 * (length - side) // side)
  return np.linspace(0, length - side, count).astype(int).tolist()
