"""Decodes images of any common format to RGB bytes."""

import contextlib
import io
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numpy as np
from PIL import Image, ImageOps

from ctx_encoder.data.cpu_limit import limit_cpu

MAX_PIXELS = 100_000_000
MIN_SIDE = 8
# A progressive JPEG has about ten scans; each takes about 1.5 ns per pixel to decode.
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 1_500_000_000
# CPU time: honest files take at most half of it. In the worst case one call into C is
# not interrupted, which takes as long as decoding an honest file of that many pixels.
SECONDS = 2.0
SECONDS_PER_PIXEL = 1e-7
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
# Of the files in a folder, those with these extensions are images (GIFs are not listed:
# most are animations).
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


P = ParamSpec("P")
T = TypeVar("T")


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
    BadImage: not an image, truncated, too small, too large, in a 32-bit mode, or made
      to take long: more than 100 JPEG scans, or more than 2 s of CPU time and 0.1 s
      per megapixel.
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
  return _limited(_seconds(image), to_rgb, image)


def upright(
  data: bytes | np.ndarray, max_pixels: int = MAX_PIXELS, draft: int | None = None
) -> Image.Image:
  """Decodes in the mode of the file, rotated as its EXIF says.

  With `draft`, JPEGs are decoded at reduced size, both sides at least that.

  Raises: as `decode`.
  """
  image = open_header(data, max_pixels)
  if min(image.size) < MIN_SIDE:
    width, height = image.size
    raise BadImage(f"{width}x{height} pixels, a side below {MIN_SIDE}")

  def rotated() -> Image.Image:
    if draft is not None:
      image.draft(None, (draft, draft))
    image.load()
    with contextlib.suppress(Exception):  # an image with broken EXIF is still usable
      ImageOps.exif_transpose(image, in_place=True)
    return image

  return _limited(_seconds(image), rotated)


def decode_mask(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, bool]:
  """Decodes a mask at its own size: uint8 `[H, W]`, grey or the labels of a palette.

  Returns:
    The pixels, and whether they are labels.
  Raises:
    BadImage: as for `decode`.
  """
  image = open_header(data, max_pixels)
  labels = image.mode == "P"

  def pixels() -> np.ndarray:
    return np.asarray(image if labels else image.convert("L"))

  return _limited(_seconds(image), pixels), labels


def _seconds(image: Image.Image) -> float:
  return SECONDS + SECONDS_PER_PIXEL * image.width * image.height


def _limited(
  seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
  """Calls a function of Pillow; all its errors become BadImage."""
  try:
    return limit_cpu(seconds, function, *args, **kwargs)
  except BadImage:
    raise
  except TimeoutError as error:
    raise BadImage(f"takes more than {seconds:.1f} s to decode") from error
  except Exception as error:  # codecs raise many types for damaged files
    text = " ".join(str(error).split())
    raise BadImage(f"cannot be decoded: {text or type(error).__name__}") from error


def dimensions(data: bytes | np.ndarray) -> tuple[int, int]:
  """Reads (width, height) in pixels from the header, without decoding.

  Raises:
    BadImage: not an image.
  """
  return open_header(data).size


def open_header(
  data: bytes | np.ndarray, max_pixels: float = float("inf")
) -> Image.Image:
  """Reads the header of an image and decodes nothing yet.

  Raises:
    BadImage: not an image, too large, or a JPEG with too many scans.
  """
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
      image = _limited(SECONDS, factory, io.BytesIO(data), "")
      width, height = image.size
      if width * height > max_pixels:
        raise BadImage(f"{width}x{height} pixels, above max_pixels={max_pixels}")
      if name == "JPEG":
        _check_scans(data, width * height)
      return image
  raise BadImage("empty file" if not data else "not a picture")


def _check_scans(jpeg: bytes, pixels: int) -> None:
  most = max(1, min(MAX_SCANS, MAX_SCANNED_PIXELS // max(1, pixels)))
  # The marker may also occur in metadata and after the image, so it is counted with
  # care, but only in a file where that matters.
  if jpeg.count(b"\xff\xda") > most and _count_scans(jpeg, most) > most:
    raise BadImage(f"a JPEG of {pixels} pixels with more than {most} scans")


_TEMPORARY, _START, _END, _SCAN = 0x01, 0xD8, 0xD9, 0xDA
# In a scan, 0xff is followed by 0 (a byte of data) or 0xd0 to 0xd7 (a restart).
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")


def _count_scans(jpeg: bytes, most: int) -> int:
  """Returns the number of scans up to the end of the image, at most `most` + 1."""
  count, at = 0, 2
  while count <= most and (found := _MARKER.search(jpeg, at)):
    marker, at = found[1][0], found.end()
    if marker == _END:
      break
    count += marker == _SCAN
    if marker not in (_START, _TEMPORARY):  # the others have a length
      at += int.from_bytes(jpeg[at : at + 2], "big")
  return count


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
