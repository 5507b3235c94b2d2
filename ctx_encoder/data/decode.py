"""Any picture people have, as a square of RGB bytes: the one decoder of every path."""

import contextlib
import io

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 100_000_000
MIN_SIDE = 8
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")


class BadImage(ValueError):
  """A picture that cannot be used; the message says why, in a few words."""


def decode(
  data: bytes | np.ndarray, size: int, max_pixels: int = MAX_PIXELS
) -> np.ndarray:
  """Decodes a picture into a square: short side to `size`, centre kept.

  Turns it upright (EXIF), puts transparency on white, scales 16 bits to 8, converts
  grey, palette and CMYK to RGB, and resizes with an antialiased bicubic filter.

  Args:
    data: an encoded picture (JPEG, PNG, WebP, BMP, TIFF or GIF), or its pixels as
      uint8 `[H, W, 3]`.
    size: side of the result, in pixels.
    max_pixels: refuse pictures whose header announces more, before decoding.
  Returns:
    uint8 `[size, size, 3]`.
  Raises:
    BadImage: not a picture, truncated, too small, too large, or of a kind that has
      no defined range.
  """
  # JPEG decodes to 1/2, 1/4 or 1/8 for less. Three times the side wanted leaves the
  # bicubic filter enough to work with, and a camera's pictures take far less time.
  image = _decoded(data, max_pixels, draft=3 * size)
  return np.array(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))


def decode_whole(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
  """Decodes a picture as it is: uint8 `[H, W, 3]`, otherwise as `decode` does."""
  return np.array(_decoded(data, max_pixels))


def _decoded(
  data: bytes | np.ndarray, max_pixels: int, draft: int | None = None
) -> Image.Image:
  """Returns a picture, upright and RGB; no side need be above `draft` pixels."""
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
    with contextlib.suppress(Exception):  # broken EXIF is no reason to lose a picture
      ImageOps.exif_transpose(image, in_place=True)
    return _to_rgb(image)
  except BadImage:
    raise
  except Exception as error:  # damaged files make the codecs raise nearly anything
    raise BadImage(_reason(error)) from error


def dimensions(data: bytes | np.ndarray) -> tuple[int, int]:
  """Returns (width, height) of a picture, in pixels, from its header alone.

  Raises:
    BadImage: not a picture.
  """
  return _open(data).size


def _open(data: bytes | np.ndarray) -> Image.Image:
  """Reads the header. Nothing is decoded yet."""
  if isinstance(data, np.ndarray):
    return Image.fromarray(data)
  Image.preinit()
  prefix = data[:16]
  for name in FORMATS:
    if name not in Image.OPEN:
      Image.init()
    # Image.open would do, but for its own limit on pixels, which is a global.
    factory, accept = Image.OPEN[name]
    if accept is None or accept(prefix) is True:
      try:
        return factory(io.BytesIO(data), "")
      except Exception as error:
        raise BadImage(_reason(error)) from error
  raise BadImage("empty file" if not data else "not a picture")


def _to_rgb(image: Image.Image) -> Image.Image:
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
