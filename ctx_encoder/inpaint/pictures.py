"""Reads pictures and masks from files, bytes, PIL images and arrays."""

import os
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from ctx_encoder.data.decode import MAX_PIXELS, decode_whole, to_rgb, upright
from ctx_encoder.data.paths import read_file

Source = str | os.PathLike | bytes

_LEAST_ALPHA = 16  # difference of alpha, of 255, that is not an accident
_RIM = 8  # pixels around paint that compression mixes with it: a block of JPEG


def read_image(source: Source, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """Reads a picture: uint8 `[H, W, 3]`, turned upright by EXIF, alpha over white.

  Args:
    source: path or bytes of a JPEG, PNG, WebP, BMP, TIFF or GIF file.
    max_pixels: larger pictures are refused by their header, before decoding.
  Raises:
    BadImage: the file is not a usable picture; the message has the reason.
    OSError: the file cannot be read.
  """
  data = source if isinstance(source, bytes) else read_file(source)
  return decode_whole(data, max_pixels)


def read_mask(
  source: Source, *, inverted: bool = False, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
  """Reads a mask: bool `[H, W]`, true = hole.

  Pixels brighter than half are the hole. If the transparency varies, it defines the
  hole instead, and colours do not count: of a mostly transparent mask, a layer painted
  on, the painted part; of a mostly opaque one, a picture with an erased part, the
  transparent part.

  Args:
    source: path or bytes of a picture.
    inverted: the other part is the hole.
    max_pixels: as for `read_image`.
  Raises: as `read_image`.
  """
  data = source if isinstance(source, bytes) else read_file(source)
  return _hole(upright(data, max_pixels)) != inverted


def _hole(mask: Image.Image) -> np.ndarray:
  if mask.has_transparency_data:
    alpha = np.asarray(mask.convert("RGBA").getchannel("A")).astype(int)
    if np.ptp(alpha) >= _LEAST_ALPHA:
      opaque = 2 * alpha > alpha.min() + alpha.max()
      return opaque if opaque.mean() <= 0.5 else ~opaque
  return np.asarray(to_rgb(mask)).mean(2) > 127.5


def is_lossy(data: bytes) -> bool:
  """Returns whether an encoded picture is a JPEG or a lossy WebP."""
  return data[:2] == b"\xff\xd8" or (data[:4] == b"RIFF" and b"VP8 " in data[:64])


def hole_of_color(
  image: np.ndarray,
  color: tuple[int, int, int],
  *,
  tolerance: int = 16,
  least: int = 16,
  lossy: bool = False,
) -> np.ndarray:
  """Finds holes painted into a picture in one colour.

  Args:
    image: uint8 `[H, W, 3]`.
    color: RGB in [0, 255].
    tolerance: largest difference in each channel.
    least: smallest number of connected pixels; smaller parts are highlights or noise.
    lossy: the picture was compressed after painting. The tolerance is four times as
      large, and pixels around with a share of the paint, by colour, are holes too.
  Returns:
    bool `[H, W]`, true = hole.
  """
  paint = np.array(color, np.int16)
  near = (np.abs(image - paint) <= (4 if lossy else 1) * tolerance).all(2)
  labels, _ = ndimage.label(near, np.ones((3, 3), int))
  large = np.bincount(labels.ravel()) >= least
  large[0] = False
  hole = large[labels]
  return _with_rim(image, hole, paint) if lossy and hole.any() else hole


def _with_rim(image: np.ndarray, hole: np.ndarray, paint: np.ndarray) -> np.ndarray:
  """Adds pixels near holes that are mixtures of paint and background.

  The background is the mean colour of the pixels farther away than `_RIM`. Where it
  resembles the paint nothing is added but the next two pixels.
  """
  around = grown(hole, _RIM)
  clean = (~around).astype(np.float32)
  weight = ndimage.gaussian_filter(clean, 2 * _RIM)
  along, square = np.zeros(hole.shape), np.full(hole.shape, 1e-6)
  for channel in range(3):
    plane = image[..., channel].astype(np.float32)
    ground = ndimage.gaussian_filter(clean * plane, 2 * _RIM) / (weight + 1e-6)
    along += (plane - ground) * (paint[channel] - ground)
    square += (paint[channel] - ground) ** 2
  mixed = around & (along > 0.15 * square) & (square > 32**2)
  return grown(ndimage.binary_propagation(hole, mask=hole | mixed), 1) | grown(hole, 2)


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
  """Enlarges the holes of a mask, bool `[H, W]`, by `pixels` on all sides."""
  return ndimage.maximum_filter(mask, size=2 * pixels + 1) if pixels else mask


def as_image(image: Any) -> np.ndarray:
  """Converts any kind of picture to uint8 `[H, W, 3]`.

  Args:
    image: a PIL image, the path or bytes of a file, or whatever `np.asarray` takes.

  Raises:
    ValueError: an array has another dtype or shape.
    BadImage, OSError: as `read_image`.
  """
  if isinstance(image, Image.Image):
    return np.array(to_rgb(image))
  if isinstance(image, Source):
    return read_image(image)
  image = np.asarray(image)
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
    raise ValueError(
      "An image must be uint8 [height, width, 3], not"
      f" {image.dtype} {list(image.shape)}."
    )
  return image


def as_mask(mask: Any) -> np.ndarray:
  """Converts any kind of mask to bool `[H, W]`, true = hole.

  What `np.asarray` takes is `[H, W]` or `[H, W, 1]` with bools, values in [0, 1], or up
  to 255, where values above half of the range are the hole; or uint8 `[H, W, C]` with
  the channels of a picture: grey and alpha, RGB or RGBA. Pictures mean the same as in
  `read_mask`.

  Raises:
    ValueError: an array has another shape.
    BadImage, OSError: as `read_image`.
  """
  if isinstance(mask, Image.Image):
    return _hole(mask)
  if isinstance(mask, Source):
    return read_mask(mask)
  mask = np.asarray(mask)
  if mask.ndim == 3 and mask.shape[2] == 1:
    mask = mask[..., 0]
  if mask.ndim == 2:
    return mask > (127.5 if mask.size and mask.max() > 1 else 0.5)
  if mask.dtype != np.uint8 or mask.ndim != 3 or mask.shape[2] not in (2, 3, 4):
    raise ValueError(
      "A mask must be [height, width], or uint8 [height, width, 2 to 4 channels], not"
      f" {mask.dtype} {list(mask.shape)}."
    )
  return _hole(Image.fromarray(mask))
