"""Classical inpainting baselines.

Every function takes an image, uint8 `[H, W, 3]`, and a mask, bool `[H, W]`, True for
the hole, and returns the completed image, uint8. It does not read the hole's pixels.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np


def mean_color(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Fills the hole with the mean colour of the known pixels; grey if there are none."""
  color = np.full(3, 127.5) if mask.all() else image[~mask].mean(axis=0)
  return np.where(mask[..., None], np.round(color), image).astype(np.uint8)


def telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Fast marching from the border of the hole inwards, radius 3, by OpenCV.

  References: Telea, An Image Inpainting Technique Based on the Fast Marching Method,
    Journal of Graphics Tools 9, 2004.
  """
  import cv2

  return _opencv(image, mask, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Continues the lines of equal brightness into the hole, radius 3, by OpenCV.

  References: Bertalmio et al., Navier-Stokes, Fluid Dynamics, and Image and Video
    Inpainting, CVPR 2001.
  """
  import cv2

  return _opencv(image, mask, cv2.INPAINT_NS)


def biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The smoothest surface through the known pixels, by scikit-image; a second an image.

  References: Damelin and Hoang, On Surface Completion and Image Inpainting by
    Biharmonic Functions: Numerical Aspects, 2018.
  """
  from skimage.restoration import inpaint_biharmonic

  if mask.all():
    return mean_color(image, mask)
  known = np.where(mask[..., None], 0, image) / 255
  completed = inpaint_biharmonic(known, mask, channel_axis=-1)
  painted = np.round(255 * np.clip(completed, 0, 1))
  return np.where(mask[..., None], painted, image).astype(np.uint8)


def _opencv(image: np.ndarray, mask: np.ndarray, method: int) -> np.ndarray:
  import cv2

  known = np.where(mask[..., None], 0, image).astype(np.uint8)
  return cv2.inpaint(known, mask.astype(np.uint8), 3, method)


class Baseline(NamedTuple):
  """A baseline, its name in tables, the module it needs and how to install that."""

  printed: str
  complete: Callable[[np.ndarray, np.ndarray], np.ndarray]
  module: str
  package: str


# By the name on the command line.
BASELINES = {
  "mean": Baseline("mean colour", mean_color, "numpy", "numpy"),
  "telea": Baseline("Telea", telea, "cv2", "opencv-python-headless"),
  "navier_stokes": Baseline(
    "Navier-Stokes", navier_stokes, "cv2", "opencv-python-headless"
  ),
  "biharmonic": Baseline("biharmonic", biharmonic, "skimage", "scikit-image"),
}
DEFAULT = ("mean", "telea")


def named(names: Sequence[str]) -> list[Baseline]:
  """Returns baselines by name.

  Raises:
    ModuleNotFoundError: the library of one is not installed.
  """
  chosen = [BASELINES[name] for name in names]
  for baseline in chosen:
    if not find_spec(baseline.module):
      raise ModuleNotFoundError(_missing(baseline))
  return chosen


def default() -> tuple[list[Baseline], list[str]]:
  """Returns the default baselines whose libraries are installed, and what is missing.

  Returns:
    The baselines, and a sentence for each that had to be left out.
  """
  wanted = [BASELINES[name] for name in DEFAULT]
  missing = [baseline for baseline in wanted if not find_spec(baseline.module)]
  usable = [baseline for baseline in wanted if baseline not in missing]
  return usable, [f"Left out: {_missing(baseline)}" for baseline in missing]


def _missing(baseline: Baseline) -> str:
  return (
    f"The baseline {baseline.printed} needs {baseline.module}, which is not installed:"
    f" pip install {baseline.package}"
  )
