"""What completes a hole without learning: the figures that a network has to beat.

Every function takes an image, uint8 `[H, W, 3]`, and a mask, bool `[H, W]`, True for
the hole, and returns the completed image, uint8; it sees nothing of the hole.
"""

from collections.abc import Callable

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


def available() -> dict[str, Baseline]:
  """Returns the baselines whose libraries are installed, by the name to print."""
  baselines = {"mean colour": mean_color}
  try:
    import cv2  # noqa: F401
  except ImportError:
    return baselines
  return baselines | {"Telea": telea}
