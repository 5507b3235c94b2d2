"""Reads pictures and masks from files, bytes, PIL images and arrays."""

import os
import pathlib

import numpy as np
from PIL import Image
from scipy import ndimage

from ctx_encoder.data.decode import MAX_PIXELS, decode_whole

Source = str | os.PathLike | bytes


def read_image(source: Source, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """Reads a picture: uint8 `[H, W, 3]`, turned upright by EXIF, alpha over white.

  Args:
    source: path or bytes of a JPEG, PNG, WebP, BMP, TIFF or GIF file.
    max_pixels: larger pictures are refused by their header, before decoding.
  Raises:
    BadImage: the file is not a usable picture; the message has the reason.
    OSError: the file cannot be read.
  """
  data = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
  return decode_whole(data, max_pixels)


def read_mask(
  source: Source, *, inverted: bool = False, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
  """Reads a mask: bool `[H, W]`, true = hole.

  Args:
    source: path or bytes of a picture; pixels brighter than half are the hole.
    inverted: dark pixels are the hole.
    max_pixels: as for `read_image`.
  Raises: as `read_image`.
  """
  bright = read_image(source, max_pixels).mean(2) > 127.5
  return ~bright if inverted else bright


def hole_of_color(
  image: np.ndarray,
  color: tuple[int, int, int],
  *,
  tolerance: int = 16,
  least: int = 64,
) -> np.ndarray:
  """Finds holes painted into a picture in one colour.

  Args:
    image: uint8 `[H, W, 3]`.
    color: RGB in [0, 255].
    tolerance: largest difference in each channel.
    least: smallest number of connected pixels; smaller parts are highlights or noise.
  Returns:
    bool `[H, W]`, true = hole.
  """
  near = (np.abs(image.astype(np.int16) - np.array(color, np.int16)) <= tolerance).all(
    2
  )
  labels, _ = ndimage.label(near, np.ones((3, 3), int))
  large = np.bincount(labels.ravel()) >= least
  large[0] = False
  return large[labels]


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
  """Enlarges the holes of a mask, bool `[H, W]`, by `pixels` on all sides."""
  return ndimage.maximum_filter(mask, size=2 * pixels + 1) if pixels else mask


def as_image(image: np.ndarray | Image.Image | Source) -> np.ndarray:
  """Converts any kind of picture to uint8 `[H, W, 3]`.

  Raises:
    ValueError: an array has another dtype or shape.
    BadImage, OSError: as `read_image`.
  """
  if isinstance(image, Image.Image):
    return np.array(image.convert("RGB"))
  if not isinstance(image, np.ndarray):
    return read_image(image)
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
    raise ValueError(
      "An image must be uint8 [height, width, 3], not"
      f" {image.dtype} {list(image.shape)}."
    )
  return image


def as_mask(mask: np.ndarray | Image.Image | Source) -> np.ndarray:
  """Converts any kind of mask to bool `[H, W]`, true = hole.

  Arrays are `[H, W]` or `[H, W, 1]` with bools, values in [0, 1], or up to 255; values
  above half of the range are the hole.

  Raises:
    ValueError: an array has another shape.
    BadImage, OSError: as `read_image`.
  """
  if isinstance(mask, Image.Image):
    mask = np.asarray(mask.convert("L"))
  if not isinstance(mask, np.ndarray):
    return read_mask(mask)
  if mask.ndim == 3 and mask.shape[2] == 1:
    mask = mask[..., 0]
  if mask.ndim != 2:
    raise ValueError(f"A mask must be [height, width], not {list(mask.shape)}.")
  return mask > (127.5 if mask.size and mask.max() > 1 else 0.5)
