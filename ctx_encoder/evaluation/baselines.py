"""What completes a hole without learning: the figures that a network has to beat.

Every function takes an image, uint8 `[H, W, 3]`, and a mask, bool `[H, W]`, True for
the hole, and returns the completed image, uint8; it sees nothing of the hole.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np

Baseline = Callable[[np.ndarray, np.ndarray], np.ndarray]


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

  known = np.where(mask[..., None], 0, image).astype(np.uint8)
  return cv2.inpaint(known, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)


def navier_stokes(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """Continues the lines of equal brightness into the hole, radius 3, by OpenCV.

  References: Bertalmio et al., Navier-Stokes, Fluid Dynamics, and Image and Video
    Inpainting, CVPR 2001.
  """
  import cv2

  known = np.where(mask[..., None], 0, image).astype(np.uint8)
  return cv2.inpaint(known, mask.astype(np.uint8), 3, cv2.INPAINT_NS)


def biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The smoothest surface through what is known, by scikit-image; a second an image.

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


# Name on the command line: the name to print, the function, the library it needs.
BASELINES: dict[str, tuple[str, Baseline, str]] = {
  "mean": ("mean colour", mean_color, "numpy"),
  "telea": ("Telea", telea, "cv2"),
  "navier_stokes": ("Navier-Stokes", navier_stokes, "cv2"),
  "biharmonic": ("biharmonic", biharmonic, "skimage"),
}


def available(names: Sequence[str] = ("mean", "telea")) -> dict[str, Baseline]:
  """Returns those of the baselines whose libraries are installed, by printed name."""
  chosen = [BASELINES[name] for name in names]
  return {
    printed: complete for printed, complete, library in chosen if find_spec(library)
  }
