"""A folder of mask images as the array of silhouettes that random regions draw from."""

from pathlib import Path

import numpy as np
from PIL import Image

from ctx_encoder.data.sources import EXTENSIONS


def load_silhouettes(path: str, size: int, inverted: bool = False) -> np.ndarray:
  """Reads every mask image in a folder and below it, sorted by name.

  Each is cut to the bounding box of its hole, put in the middle of a square and
  resized: where and how large a silhouette is in its file does not matter. Files
  without a hole are left out.

  Args:
    path: folder of images; brighter than half = hole. Label maps with a palette, as
      PASCAL VOC has them, count every label but 0 and 255 as hole.
    size: side of the result, in pixels.
    inverted: the files have it the other way round, dark = hole.
  Returns:
    uint8 `[N, size, size, 1]`, 1 = hole, none of them empty.
  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: no images in it, one that cannot be read, or no hole in any of them.
  """
  return np.stack([_fit(hole, size) for hole in _holes(path, inverted)])[..., None]


def load_masks(path: str, size: int, inverted: bool = False) -> np.ndarray:
  """Reads every mask image in a folder and below it as it is, sorted by name.

  Each is resized to the square, without smoothing. Arguments, result and errors are
  those of `load_silhouettes`.
  """
  masks = []
  for hole in _holes(path, inverted):
    image = Image.fromarray(hole.astype(np.uint8)).resize(
      (size, size), Image.Resampling.NEAREST
    )
    masks.append(np.asarray(image))
  return np.stack(masks)[..., None]


def _holes(path: str, inverted: bool) -> list[np.ndarray]:
  """Returns the masks of a folder that have a hole, bool `[H, W]` each."""
  root = Path(path).expanduser()
  if not root.is_dir():
    raise FileNotFoundError(
      f"There is no folder {str(path)!r} (masks.path): give a folder of mask images."
    )
  files = sorted(
    file
    for file in root.rglob("*")
    if file.suffix.lower() in EXTENSIONS
    and file.is_file()
    and not any(part.startswith(".") for part in file.relative_to(root).parts)
  )
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
    with Image.open(file) as image:
      if image.mode == "P":
        labels = np.asarray(image)
        if len(np.unique(labels)) > 2:
          return (labels != 0) & (labels != 255)
      return np.asarray(image.convert("L")) > 127
  except Exception as error:  # damaged files make the codecs raise nearly anything
    raise ValueError(f"Mask image {file} cannot be read: {error}") from error


def _fit(hole: np.ndarray, size: int) -> np.ndarray:
  """Returns uint8 `[size, size]`, 1 = hole: the hole as large as it fits."""
  rows, columns = (np.flatnonzero(hole.any(axis=axis)) for axis in (1, 0))
  box = hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  short = max(box.shape) - np.array(box.shape)
  square = np.pad(box, [(pad // 2, pad - pad // 2) for pad in short])
  image = Image.fromarray(square.astype(np.uint8) * 255)
  resized = np.asarray(image.resize((size, size), Image.Resampling.BOX))
  # What is too thin to cover half of any pixel keeps the pixels that it covers most.
  return (resized >= min(128, resized.max())).astype(np.uint8)
