"""The embedded data set: crops of the photographs in scikit-image."""

import functools
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

PHOTOGRAPHS = {
  "astronaut": "astronaut.png",
  "chelsea": "chelsea.png",
  "coffee": "coffee.png",
  "hubble_deep_field": "hubble_deep_field.jpg",
  "motorcycle": "motorcycle_left.png",
  "rocket": "rocket.jpg",
}

# Smallest standard deviation of a crop's 4x4 thumbnail, relative to the value range.
# Plain crops (night sky, table top) are left out: the mean colour completes them well.
STRUCTURE = 0.1


class Box(NamedTuple):
  """A square crop, in pixels of the photograph."""

  left: int
  top: int
  side: int


def crop_boxes(width: int, height: int) -> dict[str, list[Box]]:
  """Returns the crops of a photograph in landscape format.

  A crop's side is 1/6 of the height, and crops are 1/6 of a side apart. The middle
  fifth of the width is for validation, the rest for training; no crop overlaps both.

  Args:
    width: width of the photograph, pixels.
    height: its height, at most `width`.
  Returns:
    `{"train": boxes, "validation": boxes}`, row by row.
  """
  side = height // 6
  stride = max(1, side // 6)
  band = width // 5
  start = (width - band) // 2

  def boxes(left: int, right: int) -> list[Box]:
    return [
      Box(x, y, side)
      for y in range(0, height - side + 1, stride)
      for x in range(left, right - side + 1, stride)
    ]

  return {
    "train": boxes(0, start) + boxes(start + band, width),
    "validation": boxes(start, start + band),
  }


@functools.cache
def crops() -> tuple[dict[str, tuple[str, Box]], dict[str, str]]:
  """Lists the crops with enough structure of all installed photographs.

  Returns:
    `{"astronaut/train/0_64": ("astronaut", box)}`, named by the crop's top and left;
    and `{photograph: reason}` for missing photographs.
  Raises:
    ModuleNotFoundError: scikit-image is not installed.
  """
  found, missing = {}, {}
  for photograph in PHOTOGRAPHS:
    try:
      height, width, _ = pixels(photograph).shape
    except OSError:
      missing[photograph] = "not shipped with this version of scikit-image"
      continue
    for split, boxes in crop_boxes(width, height).items():
      for box in filter(functools.partial(_has_structure, pixels(photograph)), boxes):
        found[f"{photograph}/{split}/{box.top}_{box.left}"] = (photograph, box)
  return found, missing


@functools.lru_cache(maxsize=len(PHOTOGRAPHS))
def pixels(photograph: str) -> np.ndarray:
  """Returns a photograph as uint8 `[H, W, 3]`, from the installed files only."""
  # skimage.data would download photographs that are not installed.
  spec = importlib.util.find_spec("skimage")
  if spec is None or not spec.submodule_search_locations:
    raise ModuleNotFoundError(
      "The embedded photographs come with scikit-image, which is not installed:"
      " pip install scikit-image, or set data.path to a folder of images."
    )
  folder = Path(spec.submodule_search_locations[0], "data")
  with Image.open(folder / PHOTOGRAPHS[photograph]) as image:
    return np.array(image.convert("RGB"))


def _has_structure(photograph: np.ndarray, box: Box) -> bool:
  left, top, side = box
  cells = side // 4
  crop = photograph[top : top + 4 * cells, left : left + 4 * cells] / 255
  thumbnail = crop.reshape(4, cells, 4, cells, 3).mean(axis=(1, 3))
  return bool(np.sqrt(thumbnail.var(axis=(0, 1)).mean()) >= STRUCTURE)
