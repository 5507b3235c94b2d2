"""Writes a completed picture in the mode of the original, with its metadata."""

import io

import numpy as np
from PIL import Image

from ctx_encoder.data.decode import to_rgb
from ctx_encoder.inpaint import blending, wide

# What each format can contain; Pillow reads the rest of these from `Image.info`.
_MODES = {
  "JPEG": ("L", "RGB"),
  "BMP": ("1", "L", "RGB"),
  "WEBP": ("RGB", "RGBA"),
  "PNG": ("1", "L", "LA", "RGB", "RGBA", "I;16"),
  "TIFF": ("1", "L", "LA", "RGB", "RGBA", "I;16"),
}
_OPTIONS = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
_OPTIONS["PNG"] = {"compress_level": 4}  # half the time of 6 on photographs, as small
_WITHOUT_METADATA = ("BMP",)


def like(
  original: Image.Image, completed: np.ndarray, hole: np.ndarray | None = None
) -> Image.Image:
  """Returns a completed picture in the mode of the original, with its metadata.

  Pixels that did not change are those of the original, to the last bit. New ones have 8
  bits per channel and are opaque. Palettes and CMYK become RGB, black and white becomes
  grey.

  Args:
    original: of any mode, upright.
    completed: uint8 `[H, W, 3]`, made from the original in RGB.
    hole: bool `[H, W]`: pixels that become opaque, besides those that changed.
  """
  changed = _changed(original, completed, hole)
  mode = original.mode
  new = Image.fromarray(completed)
  if mode.startswith("I;16"):
    gray = np.asarray(new.convert("L")).astype(np.uint16) * 257
    pixels = np.where(changed, gray, np.asarray(original).astype(np.uint16))
  else:
    if mode in ("LA", "L", "1"):
      mode = "L"
    else:
      mode = "RGB"
    if original.has_transparency_data:
      mode += "A"
    old = np.asarray(original.convert(mode))
    new = np.asarray(new.convert(mode))
    pixels = np.where(changed if new.ndim == 2 else changed[..., None], new, old)
  result = Image.fromarray(pixels)
  result.info = {
    name: original.info[name]
    for name in ("icc_profile", "dpi")
    if original.info.get(name) and (name != "icc_profile" or original.mode != "CMYK")
  }
  if exif := original.getexif():
    result.info["exif"] = exif.tobytes()
  return result


def _changed(
  original: Image.Image, completed: np.ndarray, hole: np.ndarray | None
) -> np.ndarray:
  changed = blending.changed(np.asarray(to_rgb(original)), completed)
  return changed if hole is None else changed | hole


def encode_like(
  data: bytes,
  original: Image.Image,
  completed: np.ndarray,
  extension: str,
  hole: np.ndarray,
) -> tuple[bytes, list[str]]:
  """Encodes a completed picture with all that the original's file contains.

  Args:
    data: the original's file.
    original, completed, hole: as for `like`.
    extension: as for `encode`; PNG keeps 16 bits per channel of colour pictures.
  Returns:
    The file's bytes, and what of the original's file they do not contain, as nouns.
  """
  picture = like(original, completed, hole)
  if extension == ".png" and wide.is_wide(data):
    old = wide.read(data)
    new = np.asarray(picture.convert("RGB" if old.shape[2] == 3 else "RGBA"))
    changed = _changed(original, completed, hole)[..., None]
    pixels = np.where(changed, new.astype(np.uint16) * 257, old)
    return wide.png(pixels, picture), []
  encoded, lost = encode(picture, extension)
  return encoded, list(dict.fromkeys([*_lost_by_reading(data, original), *lost]))


def encode(picture: Image.Image, extension: str) -> tuple[bytes, list[str]]:
  """Encodes a picture from `like`.

  Args:
    picture: the picture.
    extension: of the file, such as ".png"; it selects the format.
  Returns:
    The file's bytes, and what of the picture the format cannot contain, as nouns.
  """
  form = Image.registered_extensions()[extension]
  lost = []
  info = {str(name): value for name, value in picture.info.items()}
  if picture.mode not in _MODES[form]:
    wide, alpha = picture.mode.startswith("I;16"), picture.mode.endswith("A")
    if wide:
      lost.append("16 bits per channel")
    if alpha and not any(mode.endswith("A") for mode in _MODES[form]):
      lost.append("transparency")
    mode = (
      "RGBA" if alpha and not lost else "L" if wide or picture.mode[0] == "L" else "RGB"
    )
    picture = to_rgb(picture) if mode != "RGBA" else picture.convert(mode)
    if mode == "L" and mode in _MODES[form]:
      picture = picture.convert(mode)
  if form in _WITHOUT_METADATA:
    for name, noun in (("icc_profile", "colour profile"), ("exif", "EXIF data")):
      if info.pop(name, None):
        lost.append(noun)
  file = io.BytesIO()
  picture.save(file, form, **_OPTIONS.get(form, {}), **info)
  return file.getvalue(), lost


def _lost_by_reading(data: bytes, original: Image.Image) -> list[str]:
  """Returns what of a file is not in the picture that `like` makes, as nouns."""
  lost = ["16 bits per channel"] if wide.is_wide(data) else []
  if original.mode == "P":
    lost.append("palette")
  if original.mode == "CMYK":
    lost.append("CMYK colours")
  if getattr(original, "n_frames", 1) > 1:
    lost.append("frames after the first")
  return lost
