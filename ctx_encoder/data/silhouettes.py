"""Mask images from a folder, as silhouettes for random regions or as they are."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ctx_encoder.data.decode import EXTENSIONS, BadImage, decode_mask
from ctx_encoder.data.paths import read_file
from ctx_encoder.data.sources import find_images


def region_silhouettes(masks: Any, size: int) -> np.ndarray | None:
  """Returns the silhouettes that the section `masks` names, or None if it uses none.

  Args:
    masks: configuration section with the fields region, path and inverted.
    size: side of the result, in pixels.
  Returns:
    uint8 `[N, size, size, 1]`, 1 = hole; see `load_silhouettes`.
  """
  if masks.region != "shapes" or not masks.path:
    return None
  return load_silhouettes(masks.path, size, masks.inverted)


def load_silhouettes(path: str, size: int, inverted: bool = False) -> np.ndarray:
  """Reads all mask images in a folder and below, sorted by name.

  Each hole is cropped to its bounding box, centred in a square and resized: its place
  and scale in the file do not matter. Files without a hole are left out.

  Args:
    path: folder of images; brighter than half = hole. Palette images are label maps,
      as in PASCAL VOC: label 0 is background and all other labels are hole, except
      255 (void) if there are others.
    size: side of the result, in pixels.
    inverted: the files have the opposite meaning, dark = hole.
  Returns:
    uint8 `[N, size, size, 1]`, 1 = hole, each with at least one hole pixel.
  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: no images in it, an unreadable one, or no hole in any of them.
  """
  return np.stack([_fit(hole, size) for hole in _holes(path, inverted)])[..., None]


def load_masks(path: str, size: int, inverted: bool = False) -> np.ndarray:
  """Reads all mask images in a folder and below, each resized without smoothing.

  Arguments, result and errors are those of `load_silhouettes`.
  """
  images = [Image.fromarray(np.uint8(hole)) for hole in _holes(path, inverted)]
  resized = [image.resize((size, size), Image.Resampling.NEAREST) for image in images]
  return np.stack([np.asarray(image) for image in resized])[..., None]


def _holes(path: str, inverted: bool) -> list[np.ndarray]:
  """Returns the masks of a folder that have a hole, bool `[H, W]` each."""
  root = Path(path).expanduser()
  if not root.is_dir():
    raise FileNotFoundError(
      f"There is no folder {str(path)!r} (masks.path): give a folder of mask images."
    )
  files = sorted(root / name for name in find_images(root)[0])
  if not files:
    raise ValueError(
      f"No mask images in {root} (masks.path) or below: looked for"
      f" {' '.join(EXTENSIONS)}."
    )
  holes = [hole for file in files if (hole := _hole(file) != inverted).any()]
  if not holes:
    raise ValueError(
      f"None of the {len(files)} mask images in {root} (masks.path) has a hole: hole is"
      f" {'dark, since masks.inverted is set' if inverted else 'brighter than half'}."
    )
  return holes


def _hole(file: Path) -> np.ndarray:
  try:
    image, labels = decode_mask(read_file(file))
  except (OSError, BadImage) as error:
    reason = getattr(error, "strerror", None) or error
    raise ValueError(f"Mask image {file} cannot be read: {reason}") from error
  if not labels:
    return image > 127
  objects = (image != 0) & (image != 255)
  return objects if objects.any() else image != 0


def _fit(hole: np.ndarray, size: int) -> np.ndarray:
  """Returns uint8 `[size, size]`, 1 = hole: the hole enlarged to fit the square."""
  rows, columns = (np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0))
  box = hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  short = max(box.shape) - np.array(box.shape)
  square = np.pad(box, [(pad // 2, pad - pad // 2) for pad in short])
  image = Image.fromarray(square.astype(np.uint8) * 255)
  resized = np.asarray(image.resize((size, size), Image.Resampling.BOX))
  # Holes too thin to cover half of any pixel keep the pixels that they cover most.
  return (resized >= min(128, resized.max())).astype(np.uint8)
