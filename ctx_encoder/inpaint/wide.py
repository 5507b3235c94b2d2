"""Colour pictures of 16 bits per channel, which Pillow reduces to 8."""

import io

import numpy as np
from PIL import Image

from ctx_encoder.data.decode import open_header

_START = 33  # bytes of a PNG before the first chunk after its header
_ORIENTATION = 0x0112
# What undoes each orientation of EXIF.
_UPRIGHT = {
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.swapaxes(0, 1),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
  8: np.rot90,
}


def is_wide(data: bytes) -> bool:
  """Returns whether a file has 16 bits per channel that Pillow reduces to 8."""
  picture = open_header(data)
  if picture.mode not in ("RGB", "RGBA", "LA") or "transparency" in picture.info:
    return False
  if picture.format == "PNG":
    return data[24] == 16
  return 16 in getattr(picture, "tag_v2", {}).get(258, ())  # bits per sample


def read(data: bytes) -> np.ndarray:
  """Returns the pixels of a file that `is_wide`: uint16 `[H, W, 3]` or `[H, W, 4]`.

  RGB or RGBA, upright. Decode it with `decode.upright` first, which limits the work.

  Raises:
    ValueError: OpenCV cannot read it.
  """
  import cv2

  pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
  if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
    raise ValueError("OpenCV cannot read its 16 bits per channel")
  turn = _UPRIGHT.get(open_header(data).getexif().get(_ORIENTATION, 1))
  return _reversed(turn(pixels) if turn else pixels)


def png(pixels: np.ndarray, picture: Image.Image) -> bytes:
  """Returns a PNG file of uint16 `[H, W, 3 or 4]` with the metadata of a picture."""
  import cv2

  small = io.BytesIO()
  info = {str(name): value for name, value in picture.info.items()}
  picture.resize((1, 1)).save(small, "PNG", **info)
  metadata = small.getvalue()[_START:].rpartition(b"IDAT")[0][:-4]
  encoded = cv2.imencode(".png", _reversed(pixels))[1].tobytes()
  return encoded[:_START] + metadata + encoded[_START:]


def _reversed(pixels: np.ndarray) -> np.ndarray:
  """Converts between RGB and OpenCV's BGR, with or without alpha."""
  return np.ascontiguousarray(pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])
