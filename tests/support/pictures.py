"""Images generated for the tests of the data room, and a short way to load them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from ctx_encoder import config as schema
from ctx_encoder import data


def load(path="", *, everything=False, processes=None, **fields):
  """Calls `data.load` with default settings but these; all images may be unusable."""
  settings = schema.default().data
  settings.update({"path": str(path), "max_bad_share": 1.0} | fields)
  return data.load(settings, everything=everything, processes=processes)


def noise(height, width, channels=3, seed=0):
  """Returns uint8 noise, `[H, W, C]` or `[H, W]` for channels=0."""
  shape = (height, width, channels) if channels else (height, width)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encode(pixels, kind="PNG", **options):
  """Returns an encoded image from an array or a Pillow image."""
  image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def png(width, height, depth, color_type, rows):
  """Writes a PNG by its specification, for kinds that Pillow cannot write."""

  def chunk(name, body):
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)

  header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    + chunk(b"IEND", b"")
  )


def fill_folder(folder, count, side=16, prefix="picture"):
  """Writes `count` different PNGs; returns their names."""
  folder.mkdir(parents=True, exist_ok=True)
  names = [f"{prefix}{number:03d}.png" for number in range(count)]
  for number, name in enumerate(names):
    (folder / name).write_bytes(encode(noise(side, side, seed=number)))
  return names


def contents(folder):
  """Returns {relative name: bytes} of all files in a folder and below."""
  return {
    file.relative_to(folder).as_posix(): file.read_bytes()
    for file in sorted(folder.rglob("*"))
    if file.is_file()
  }
