"""Decodes images of any common format to RGB bytes."""

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 100_000_000
MIN_SIDE = 8
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
# Of the files in a folder, those with these extensions are images (GIFs are not listed:
# most are animations).
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class BadImage(ValueError):
  """An image that cannot be used; the message is the reason, in a few words."""


def decode(
  data: bytes | np.ndarray, size: int, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
  """Decodes an image, resizes its short side to `size` and crops the centre square.

  Applies the EXIF rotation, composites transparency on white, scales 16 bits to 8,
  converts grey, palette and CMYK to RGB, and resizes with an antialiased bicubic
  filter.

  Args:
    data: an encoded image (JPEG, PNG, WebP, BMP, TIFF or GIF), or its pixels as
      uint8 `[H, W, 3]`.
    size: side of the result, in pixels.
    max_pixels: images with more pixels, by their header, are refused undecoded.
  Returns:
    uint8 `[size, size, 3]`.
  Raises:
    BadImage: not an image, truncated, too small, too large, or in a 32-bit mode.
  """
  # Decoding a JPEG at 1/2, 1/4 or 1/8 is much faster; at three times the final side the
  # bicubic filter has enough pixels left.
  image = _decoded(data, max_pixels, draft=3 * size)
  return np.array(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


def decode_whole(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """Decodes an image at its own size: uint8 `[H, W, 3]`; otherwise like `decode`."""
  return np.array(_decoded(data, max_pixels))


def _decoded(
  data: bytes | np.ndarray, max_pixels: int, draft: int | None = None
) -> Image.Image:
  image = upright(data, max_pixels, draft)
  try:
    return to_rgb(image)
  except BadImage:
    raise
  except Exception as error:
    raise BadImage(_reason(error)) from error


def upright(
  data: bytes | np.ndarray, max_pixels: int = MAX_PIXELS, draft: int | None = None
) -> Image.Image:
  """Decodes in the mode of the file, rotated as its EXIF says.

  With `draft`, JPEGs are decoded at reduced size, both sides at least that.

  Raises: as `decode`.
  """
  image = _open(data)
  width, height = image.size
  if width * height > max_pixels:
    raise BadImage(f"{width}x{height} pixels, above max_pixels={max_pixels}")
  if min(width, height) < MIN_SIDE:
    raise BadImage(f"{width}x{height} pixels, a side below {MIN_SIDE}")
  try:
    if draft is not None:
      image.draft(None, (draft, draft))
    image.load()
    with contextlib.suppress(Exception):  # an image with broken EXIF is still usable
      ImageOps.exif_transpose(image, in_place=True)
    return image
  except Exception as error:  # codecs raise many types for damaged files
    raise BadImage(_reason(error)) from error


def dimensions(data: bytes | np.ndarray) -> tuple[int, int]:
  """Reads (width, height) in pixels from the header, without decoding.

  Raises:
    BadImage: not an image.
  """
  return _open(data).size


def _open(data: bytes | np.ndarray) -> Image.Image:
  """Reads the header; decodes nothing yet."""
  if isinstance(data, np.ndarray):
    return Image.fromarray(data)
  Image.preinit()
  prefix = data[:16]
  for name in FORMATS:
    if name not in Image.OPEN:
      Image.init()
    # Not Image.open: its limit on pixels is a global setting.
    factory, accept = Image.OPEN[name]
    if accept is None or accept(prefix) is True:
      try:
        return factory(io.BytesIO(data), "")
      except Exception as error:
        raise BadImage(_reason(error)) from error
  raise BadImage("empty file" if not data else "not a picture")


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts any mode to RGB: 16 bits to 8, alpha over white.

  Raises:
    BadImage: a 32-bit mode.
  """
  if image.mode.startswith("I;16"):
    wide = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
  if image.mode in ("I", "F"):
    raise BadImage("32-bit pixels have no defined range; save it with 8 or 16 bits")
  if image.has_transparency_data:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image)
  return image.convert("RGB")


def _reason(error: Exception) -> str:
  text = " ".join(str(error).split())
  return f"cannot be decoded: {text or type(error).__name__}"
