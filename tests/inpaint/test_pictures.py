"""Masks with transparency, holes of a colour in JPEGs, and what a picture keeps."""

import io
import pathlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from ctx_encoder import inpaint, xla
from ctx_encoder.apps import cli
from ctx_encoder.apps.commands import inpaint as inpaint_command
from ctx_encoder.data import landscapes
from ctx_encoder.inpaint import Inpainter, pictures

HOLE = np.zeros((40, 50), bool)
HOLE[8:20, 10:30] = True


def noise(height=40, width=50, channels=3, kind=np.uint8):
  draw = np.random.default_rng(0)
  return draw.integers(0, np.iinfo(kind).max + 1, (height, width, channels), kind)


def file(picture, kind="PNG", **options):
  content = io.BytesIO()
  picture.save(content, kind, **options)
  return content.getvalue()


def painted_layer(color, alpha=255):
  """A transparent layer with a painted rectangle: GIMP, Photoshop, Procreate."""
  layer = np.zeros((*HOLE.shape, 4), np.uint8)
  layer[HOLE] = (*color, alpha)
  return Image.fromarray(layer)


def erased(under=(0, 0, 0)):
  """A picture with an erased rectangle, as editors save it and APIs take it."""
  layer = np.dstack([noise(), np.full(HOLE.shape, 255, np.uint8)])
  layer[HOLE] = (*under, 0)
  return Image.fromarray(layer)


def palette_layer():
  """A GIF or PNG of few colours of which one is transparent."""
  layer = Image.fromarray(np.uint8(HOLE), "P")
  layer.putpalette([255, 255, 255, 200, 30, 30])
  layer.info["transparency"] = 0
  return layer


GREY = Image.fromarray(np.uint8(255 * HOLE))
MASKS = {
  "red paint": painted_layer((255, 0, 0)),
  "white paint": painted_layer((255, 255, 255)),
  "black paint": painted_layer((0, 0, 0)),
  "paint of low opacity": painted_layer((0, 200, 0), 90),
  "grey paint with alpha": painted_layer((255, 255, 255)).convert("LA"),
  "palette": palette_layer(),
  "erased": erased(),
  "erased, colour kept": erased((255, 255, 255)),
  "white on black": GREY,
  "opaque, as pages save it": GREY.convert("RGBA"),
  "one bit": GREY.convert("1"),
  "16 bits": Image.fromarray(np.uint16(65535 * HOLE)),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_mean_the_same_as_files_arrays_and_pil_images(name, tmp_path):
  mask = MASKS[name]
  (tmp_path / "mask.png").write_bytes(file(mask))
  for kind in (tmp_path / "mask.png", file(mask), mask):
    np.testing.assert_array_equal(pictures.as_mask(kind), HOLE)
  if mask.mode in ("L", "LA", "RGBA"):
    np.testing.assert_array_equal(pictures.as_mask(np.asarray(mask)), HOLE)
  inverted = inpaint.read_mask(tmp_path / "mask.png", inverted=True)
  np.testing.assert_array_equal(inverted, ~HOLE)


def photograph(side=160):
  return landscapes.read("fields5")[200 : 200 + side, 300 : 300 + side].copy()


@pytest.mark.parametrize("quality", [60, 90])
@pytest.mark.parametrize("color", [(255, 0, 255), (0, 255, 0), (255, 0, 0)])
def test_paint_vanishes_from_a_jpeg(color, quality):
  clean, painted = photograph(), photograph()
  painted[60:100, 50:90] = color
  painted[20:23, 10:150] = painted[110:150, 120:122] = color  # thin lines
  content = file(Image.fromarray(painted), "JPEG", quality=quality)
  assert inpaint.is_lossy(content)
  seen = inpaint.read_image(content)
  hole = inpaint.hole_of_color(seen, color, lossy=True)
  assert hole[(painted != clean).any(2)].mean() > 0.999
  # What remains was changed by compression no more than the rest.
  plain = inpaint.read_image(file(Image.fromarray(clean), "JPEG", quality=quality))
  left = np.abs(seen.astype(int) - plain).max(2)[~hole]
  assert np.mean(left > 24) < 0.005
  assert hole.mean() < 0.25
  before = inpaint.hole_of_color(seen, color)  # leaves a rim
  rim = np.abs(seen.astype(int) - plain).max(2)[~before]
  assert np.mean(rim > 24) > 10 * np.mean(left > 24)


def test_a_thin_exact_line_is_a_hole_and_lossless_files_are_exact():
  image = photograph()
  image[30, 20:60] = (255, 0, 255)
  found = inpaint.hole_of_color(image, (255, 0, 255))
  assert found.sum() == 40
  assert not inpaint.is_lossy(file(Image.fromarray(image)))
  assert not inpaint.is_lossy(file(Image.fromarray(image), "WEBP", lossless=True))
  assert inpaint.is_lossy(file(Image.fromarray(image), "WEBP"))


# What the output keeps

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RGB = Image.fromarray(noise())
ALPHA = Image.fromarray(noise(channels=4))
WIDE = Image.fromarray(noise(channels=1, kind=np.uint16)[..., 0])


def flat(images, holes, keys):
  del keys
  return np.where(holes > 0, np.array([200, 40, 90], np.uint8), images)


FLAT = Inpainter(flat, 16)


@pytest.mark.parametrize(
  "original",
  [RGB, RGB.convert("L"), RGB.convert("LA"), ALPHA, WIDE],
  ids=lambda image: image.mode,
)
def test_a_pil_image_keeps_mode_depth_and_known_pixels(original):
  completed = FLAT(original, HOLE, strategy="tiles", blend="none")
  assert (completed.mode, completed.size) == (original.mode, original.size)
  found, before = np.asarray(completed), np.asarray(original)
  assert found.dtype == before.dtype
  np.testing.assert_array_equal(found[~HOLE], before[~HOLE])
  gray = np.asarray(Image.new("RGB", (1, 1), (200, 40, 90)).convert("L"))[0, 0]
  expected = {"RGB": (200, 40, 90), "RGBA": (200, 40, 90, 255), "L": gray}
  expected |= {"LA": (gray, 255), "I;16": 257 * int(gray)}
  assert (found[HOLE] == expected[original.mode]).all()


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(xla, "cache_in", lambda folder: None)
  monkeypatch.setattr(Inpainter, "shipped", lambda: FLAT)
  monkeypatch.setattr(inpaint_command, "_PATIENCE", 3600)  # on the slowest machine
  GREY.save("mask.png")

  def run(words):
    code = cli.main(["inpaint", *words.split()])
    assert code == 0, capsys.readouterr().err
    return capsys.readouterr().err

  return run


def test_profile_exif_and_orientation(command):
  exif = Image.Exif()
  exif[0x0112], exif[0x010F] = 6, "a camera"  # to be rotated by 90 degrees
  turned = RGB.transpose(Image.Transpose.ROTATE_90)
  turned.save("in.jpg", exif=exif, icc_profile=PROFILE, dpi=(300, 300), quality=95)
  for extension in ("jpg", "png", "webp", "tif"):
    notes = command(f"--image in.jpg --mask mask.png --output out.{extension}")
    assert notes == ""
    with Image.open(f"out.{extension}") as out:
      assert out.size == (50, 40)  # upright, as the mask
      assert out.info["icc_profile"] == PROFILE
      assert out.getexif().get(0x0112, 1) == 1
      assert out.getexif()[0x010F] == "a camera"
  notes = command("--image in.jpg --mask mask.png --output out.bmp")
  assert "does not have the picture's colour profile, EXIF data." in notes


def test_what_a_format_cannot_contain_is_named(command):
  ALPHA.save("alpha.png")
  WIDE.save("wide.png")
  RGB.convert("L").save("gray.png")
  RGB.convert("CMYK").save("cmyk.jpg", icc_profile=PROFILE)
  RGB.quantize(8).save("palette.png")
  for name, output, mode, lost in (
    ("alpha.png", "a.png", "RGBA", ""),
    ("alpha.png", "a.webp", "RGBA", ""),
    ("alpha.png", "a.jpg", "RGB", "transparency"),
    ("wide.png", "w.png", "I;16", ""),
    ("wide.png", "w.tif", "I;16", ""),
    ("wide.png", "w.jpg", "L", "16 bits per channel"),
    ("gray.png", "g.png", "L", ""),
    ("gray.png", "g.jpg", "L", ""),
    ("gray.png", "g.webp", "RGB", ""),
    ("cmyk.jpg", "c.png", "RGB", "CMYK colours"),
    ("palette.png", "p.png", "RGB", "palette"),
  ):
    notes = command(f"--image {name} --mask mask.png --output {output}")
    with Image.open(output) as picture:
      assert picture.mode == mode, output
      assert output != "c.png" or "icc_profile" not in picture.info  # of other colours
    assert notes.strip().endswith(f"the picture's {lost}." if lost else ""), output


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("extension", ["png", "tif"])
def test_known_pixels_of_colour_pictures_keep_16_bits(command, extension, channels):
  deep = noise(channels=channels, kind=np.uint16)
  cv2.imwrite(f"deep.{extension}", deep)
  assert command(f"--image deep.{extension} --mask mask.png --output out.png") == ""
  out = cv2.imread("out.png", cv2.IMREAD_UNCHANGED)
  assert (out.dtype, out.shape) == (np.uint16, deep.shape)
  np.testing.assert_array_equal(out[~HOLE], deep[~HOLE])
  seen = np.asarray(Image.open("out.png").convert("RGB"))
  assert not (seen[HOLE] == np.uint8(deep[HOLE][:, 2::-1] >> 8)).all(1).any()
  for output in ("out.tif", "out.webp", "out.jpg"):
    notes = command(f"--image deep.{extension} --mask mask.png --output {output}")
    assert "does not have the picture's 16 bits per channel" in notes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bits_with_profile_exif_and_orientation(command, orientation):
  deep = noise(channels=3, kind=np.uint16)
  exif = Image.Exif()
  exif[0x0112], exif[0x010F] = orientation, "a camera"
  small = file(Image.new("RGB", (1, 1)), exif=exif, icc_profile=PROFILE, dpi=(300, 300))
  turned = Image.fromarray(np.uint8(deep >> 8)[..., ::-1])
  upright = ImageOps.exif_transpose(_with_exif(turned, exif))
  pixels = cv2.imencode(".png", deep)[1].tobytes()
  metadata = small[33 : small.index(b"IDAT") - 4]
  pathlib.Path("in.png").write_bytes(pixels[:33] + metadata + pixels[33:])
  hole = np.zeros((upright.height, upright.width), bool)
  hole[8:20, 10:30] = True
  Image.fromarray(hole).save("mask.png")
  assert command("--image in.png --mask mask.png --output out.png --blend none") == ""
  out = cv2.imread("out.png", cv2.IMREAD_UNCHANGED)
  assert out.dtype == np.uint16
  before = np.asarray(upright)[..., ::-1]
  np.testing.assert_array_equal(np.uint8(out >> 8)[~hole], before[~hole])
  assert set(out[~hole].ravel()) <= set(deep.ravel())
  with Image.open("out.png") as picture:
    assert picture.info["icc_profile"] == PROFILE
    assert picture.getexif().get(0x0112, 1) == 1
    assert picture.getexif()[0x010F] == "a camera"
    assert round(picture.info["dpi"][0]) == 300


def _with_exif(picture, exif):
  return Image.open(io.BytesIO(file(picture, exif=exif)))


def test_paint_in_a_jpeg_is_filled_with_a_note(command):
  image = photograph()
  image[60:100, 50:90] = (255, 0, 255)
  Image.fromarray(image).save("holed.jpg", quality=75)
  notes = command("--image holed.jpg --hole-color #ff00ff --output out.png")
  assert "lossy compression mixes paint with its surroundings" in notes
  out = inpaint.read_image("out.png").astype(int)
  assert not (out[..., 1] + 90 < np.minimum(out[..., 0], out[..., 2])).any()
