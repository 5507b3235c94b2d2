"""Pictures and masks as people have them: files, bytes, PIL images, arrays."""

import os
import pathlib

import numpy as np
from PIL import Image
from scipy import ndimage

from ctx_encoder.data.decode import MAX_PIXELS, BadImage, decode_whole

Source = str | os.PathLike | bytes


def read_image(source: Source, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """Returns a picture as uint8 `[H, W, 3]`, upright, transparency on white.

  Args:
    source: a file, or its bytes: JPEG, PNG, WebP, BMP, TIFF or GIF.
    max_pixels: refuse pictures whose header announces more, before decoding.
  Raises:
    BadImage: not a picture that can be used; the message says why.
    OSError: the file cannot be read.
  """
  data = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
  return decode_whole(data, max_pixels)


def read_mask(
  source: Source, *, inverted: bool = False, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
  """Returns a picture of a mask as bool `[H, W]`, true = hole.

  Args:
    source: a file, or its bytes: brighter than half = hole.
    inverted: it is the other way round, darker = hole.
    max_pixels: see `read_image`.
  Raises: as `read_image` does.
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
  """Finds holes that were painted into a picture in one colour.

  Args:
    image: uint8 `[H, W, 3]`.
    color: RGB in [0, 255].
    tolerance: how far every channel may be from it.
    least: connected parts of fewer pixels are highlights or noise, not holes.
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
  """Returns a mask, bool `[H, W]`, with holes that are so much larger all around."""
  return ndimage.maximum_filter(mask, size=2 * pixels + 1) if pixels else mask


def as_image(image: np.ndarray | Image.Image | Source) -> np.ndarray:
  """Returns a picture of any kind as uint8 `[H, W, 3]`.

  Raises:
    ValueError: an array of another type or shape.
    BadImage, OSError: see `read_image`.
  """
  if isinstance(image, Image.Image):
    return np.array(image.convert("RGB"))
  if not isinstance(image, np.ndarray):
    return read_image(image)
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
    raise ValueError(
      f"An image is uint8 [height, width, 3], not {image.dtype} {list(image.shape)}."
    )
  return image


def as_mask(mask: np.ndarray | Image.Image | Source) -> np.ndarray:
  """Returns a mask of any kind as bool `[H, W]`, true = hole.

  An array is of bools, of 0 and 1, or of brightness up to 255; `[H, W]` or `[H, W, 1]`.

  Raises:
    ValueError: an array of another shape.
    BadImage, OSError: see `read_image`.
  """
  if isinstance(mask, Image.Image):
    mask = np.asarray(mask.convert("L"))
  if not isinstance(mask, np.ndarray):
    return read_mask(mask)
  if mask.ndim == 3 and mask.shape[2] == 1:
    mask = mask[..., 0]
  if mask.ndim != 2:
    raise ValueError(f"A mask is [height, width], not {list(mask.shape)}.")
  return mask > (127.5 if mask.size and mask.max() > 1 else 0.5)


__all__ = [
  "BadImage",
  "as_image",
  "as_mask",
  "grown",
  "hole_of_color",
  "read_image",
  "read_mask",
]
