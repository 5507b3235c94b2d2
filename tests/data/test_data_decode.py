"""Every kind of image becomes the right RGB square, or is refused with a reason."""

import io
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pictures import encode, noise, png
from PIL import Image, ImageOps

from ctx_encoder.data.decode import BadImage, decode, dimensions

# Pillow warns about damaged files before it raises.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def test_rgb_of_the_right_size_is_untouched():
  pixels = noise(16, 16)
  np.testing.assert_array_equal(decode(encode(pixels), 16), pixels)
  np.testing.assert_array_equal(decode(pixels, 16), pixels)


def test_lossless_formats_agree():
  pixels = noise(16, 16)
  for kind in ("PNG", "BMP", "TIFF"):
    np.testing.assert_array_equal(decode(encode(pixels, kind), 16), pixels)
  webp = encode(pixels, "WEBP", lossless=True, exact=True)
  np.testing.assert_array_equal(decode(webp, 16), pixels)


def test_jpeg_decodes_close_to_the_original():
  ramp = np.linspace(0, 255, 64).astype(np.uint8)
  pixels = np.stack(np.broadcast_arrays(ramp, ramp[:, None], np.uint8(90)), -1)
  decoded = decode(encode(pixels, "JPEG", quality=95), 64)
  assert np.abs(decoded.astype(int) - pixels).mean() < 3


def test_the_centre_is_kept():
  for height, width in ((16, 32), (32, 16), (16, 17), (17, 16)):
    pixels = noise(height, width)
    top, left = (height - 16) // 2, (width - 16) // 2
    decoded = decode(encode(pixels), 16)
    if (height + width) % 2 == 0:  # otherwise the centre is between two pixels
      np.testing.assert_array_equal(decoded, pixels[top : top + 16, left : left + 16])
    assert decoded.shape == (16, 16, 3)
    assert decoded.dtype == np.uint8


def test_short_side_is_resized():
  # Three vertical stripes in a wide image: the square is the middle one.
  pixels = np.zeros((64, 192, 3), np.uint8)
  pixels[:, :64, 0] = pixels[:, 64:128, 1] = pixels[:, 128:, 2] = 200
  decoded = decode(encode(pixels), 32)
  np.testing.assert_array_equal(
    decoded[:, 2:-2], np.broadcast_to([0, 200, 0], (32, 28, 3))
  )


def test_shrinking_is_antialiased():
  checkers = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
  decoded = decode(encode(checkers.astype(np.uint8)), 16)
  assert np.abs(decoded[2:-2, 2:-2].astype(int) - 127).max() <= 8


def test_small_pictures_are_enlarged():
  assert decode(encode(noise(8, 8)), 32).shape == (32, 32, 3)


def test_grey():
  grey = noise(16, 16, channels=0)
  np.testing.assert_array_equal(decode(encode(grey), 16), np.stack([grey] * 3, -1))


def test_one_bit():
  bits = noise(16, 16, channels=0) > 127
  expected = np.stack([bits * np.uint8(255)] * 3, -1)
  np.testing.assert_array_equal(decode(encode(Image.fromarray(bits)), 16), expected)


def test_palette():
  palette = noise(1, 256)[0]
  indices = noise(16, 16, channels=0, seed=1)
  image = Image.fromarray(indices).convert("P")
  image.putdata(indices.ravel().tolist())
  image.putpalette(palette.tobytes())
  np.testing.assert_array_equal(decode(encode(image), 16), palette[indices])


def test_palette_with_a_transparent_colour_is_put_on_white():
  image = Image.new("P", (16, 16), 0)
  image.putpalette([10, 20, 30, 40, 50, 60])
  image.paste(1, (8, 0, 16, 16))
  decoded = decode(encode(image, transparency=0), 16)
  np.testing.assert_array_equal(decoded[0, 0], [255, 255, 255])
  np.testing.assert_array_equal(decoded[0, 15], [40, 50, 60])


def test_alpha_is_put_on_white():
  pixels = noise(16, 16, channels=4)
  alpha = pixels[..., 3:] / 255.0
  expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
  assert np.abs(decode(encode(pixels), 16) - expected).max() <= 1


def test_grey_with_alpha_is_put_on_white():
  pixels = noise(16, 16, channels=2)
  alpha = pixels[..., 1] / 255.0
  expected = pixels[..., 0] * alpha + 255 * (1 - alpha)
  decoded = decode(encode(Image.fromarray(pixels, "LA")), 16)
  assert np.abs(decoded - expected[..., None]).max() <= 1


def test_cmyk():
  inks = noise(16, 16, channels=4)
  expected = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:]) / 255
  decoded = decode(encode(Image.fromarray(inks, "CMYK"), "TIFF"), 16)
  assert np.abs(decoded - expected).max() <= 1


def test_cmyk_jpeg():
  image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
  decoded = decode(encode(image, "JPEG", quality=95), 16)
  assert np.abs(decoded.astype(int) - [255, 0, 0]).max() <= 3


def test_16_bit_grey_is_scaled():
  wide = np.arange(0, 65536, 256, np.uint16).reshape(16, 16)
  expected = np.round(wide / 257).astype(np.uint8)
  for kind in ("PNG", "TIFF"):
    decoded = decode(encode(wide, kind), 16)
    np.testing.assert_array_equal(decoded, np.stack([expected] * 3, -1))


def test_16_bit_colour_is_scaled():
  wide = np.random.default_rng(0).integers(0, 65536, (16, 16, 3), np.uint16)
  encoded = png(16, 16, 16, 2, [row.astype(">u2").tobytes() for row in wide])
  assert np.abs(decode(encoded, 16) - wide / 257).max() <= 1


def test_32_bit_is_refused():
  for mode in ("I", "F"):
    with pytest.raises(BadImage, match="32-bit"):
      decode(encode(Image.new(mode, (16, 16)), "TIFF"), 16)


# Orientation to the operation that shows the stored pixels: EXIF 2.32, section 4.6.4.
UPRIGHT = {
  1: lambda stored: stored,
  2: lambda stored: stored[:, ::-1],
  3: lambda stored: stored[::-1, ::-1],
  4: lambda stored: stored[::-1],
  5: lambda stored: stored.swapaxes(0, 1),
  6: lambda stored: stored[::-1].swapaxes(0, 1),
  7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
  8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


def test_exif_rotation():
  pixels = noise(16, 16)
  for orientation, upright in UPRIGHT.items():
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF", "WEBP"):
      options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
      decoded = decode(encode(pixels, kind, exif=exif, **options), 16)
      np.testing.assert_array_equal(decoded, upright(pixels), f"{kind} {orientation}")


def test_exif_rotation_of_a_jpeg():
  pixels = np.zeros((16, 32, 3), np.uint8)
  pixels[:, :16] = 255  # stored: white left half
  exif = Image.Exif()
  exif[0x0112] = 6  # shown: white upper half
  decoded = decode(encode(pixels, "JPEG", exif=exif), 16).astype(int)
  assert decoded[:6].min() > 200
  assert decoded[-6:].max() < 55


def test_an_image_with_broken_exif_is_decoded():
  encoded = encode(noise(16, 16), "JPEG", exif=b"Exif\0\0garbage that is no TIFF")
  assert decode(encoded, 16).shape == (16, 16, 3)


def test_a_large_jpeg_is_decoded_at_reduced_size_without_loss(monkeypatch):
  coarse = Image.fromarray(noise(40, 40)).resize((1600, 1600), Image.Resampling.BICUBIC)
  encoded = encode(coarse, "JPEG", quality=90)
  whole = Image.open(io.BytesIO(encoded)).resize((64, 64), Image.Resampling.BICUBIC)
  sizes = []
  fit = ImageOps.fit
  monkeypatch.setattr(ImageOps, "fit", lambda i, *a: sizes.append(i.size) or fit(i, *a))
  decoded = decode(encoded, 64)
  assert sizes == [(200, 200)]  # 1/8, the smallest that is at least 3 x 64
  assert np.abs(decoded.astype(int) - np.asarray(whole)).mean() < 1


def test_tiny_images_are_refused():
  for size in ((1, 1), (1, 300), (300, 7)):
    with pytest.raises(BadImage, match=f"{size[0]}x{size[1]} pixels, a side below 8"):
      decode(encode(Image.new("RGB", size)), 16)


def test_other_files_are_refused():
  for data, reason in (
    (b"", "empty file"),
    (b"<html></html>", "not a picture"),
    (b"\xff\xd8\xff", "cannot be decoded"),
  ):
    for function in (decode, lambda data, size: dimensions(data)):
      with pytest.raises(BadImage, match=reason):
        function(data, 16)


def test_a_decompression_bomb_is_refused_before_decoding():
  # The header says 60000 x 60000, which takes 10 GiB; the file holds 3 rows.
  bomb = png(60000, 60000, 8, 2, [bytes(180000)] * 3)
  assert dimensions(bomb) == (60000, 60000)
  with pytest.raises(BadImage, match="60000x60000 pixels, above max_pixels=100000000"):
    decode(bomb, 16)


def test_max_pixels_is_inclusive_and_the_only_limit(monkeypatch):
  # Pillow's own limit would warn above it, and refuse above twice as much.
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
  encoded = encode(noise(20, 30))
  assert decode(encoded, 16, max_pixels=600).shape == (16, 16, 3)
  with pytest.raises(BadImage, match="30x20 pixels, above max_pixels=599"):
    decode(encoded, 16, max_pixels=599)


# Files made to take long


def rescanned(jpeg, scans):
  """Returns a JPEG with its last scan repeated this many times."""
  scan = jpeg.rindex(b"\xff\xda")
  return jpeg[:-2] + scans * jpeg[scan:-2] + jpeg[-2:]


@pytest.fixture(scope="module")
def progressive():
  return encode(noise(24, 32), "JPEG", progressive=True)


def test_a_jpeg_of_too_many_scans_is_refused_undecoded(progressive):
  scans = progressive.count(b"\xff\xda")
  assert decode(rescanned(progressive, 100 - scans), 16).shape == (16, 16, 3)
  for function in (decode, lambda data, size: dimensions(data)):
    with pytest.raises(BadImage, match="a JPEG of 768 pixels with more than 100 scans"):
      function(rescanned(progressive, 101 - scans), 16)


def test_large_jpegs_may_have_fewer_scans(progressive, monkeypatch):
  monkeypatch.setattr("ctx_encoder.data.decode.MAX_SCANNED_PIXELS", 30 * 768)
  scans = progressive.count(b"\xff\xda")
  decode(rescanned(progressive, 30 - scans), 16)
  with pytest.raises(BadImage, match="more than 30 scans"):
    decode(rescanned(progressive, 31 - scans), 16)


def test_what_looks_like_a_scan_elsewhere_does_not_count(progressive):
  expected = decode(progressive, 16)
  comment = b"\xff\xfe\x10\x00" + 2047 * b"\xff\xda"
  noted = progressive[:2] + comment + progressive[2:]
  np.testing.assert_array_equal(decode(noted, 16), expected)
  np.testing.assert_array_equal(decode(progressive + 500 * b"\xff\xda", 16), expected)


def test_an_end_marker_within_a_segment_hides_no_scans(progressive):
  scan = progressive.rindex(b"\xff\xda")
  hidden = progressive[:scan] + b"\xff\xfe\x00\x04\xff\xd9" + progressive[scan:]
  with pytest.raises(BadImage, match="more than 100 scans"):
    decode(rescanned(hidden, 200), 16)


def test_decoding_has_a_limit_of_cpu_time(monkeypatch):
  # Pillow reads each marker in Python, about 2 us for 4 bytes.
  jpeg = encode(noise(16, 16), "JPEG")
  slow = jpeg[:2] + 1_000_000 * b"\xff\xfe\x00\x02" + jpeg[2:]
  monkeypatch.setattr("ctx_encoder.data.decode.SECONDS", 0.2)
  began = time.thread_time()
  with pytest.raises(BadImage, match=r"takes more than 0\.2 s to decode"):
    decode(slow, 16)
  assert time.thread_time() - began < 5


KINDS = {
  "jpeg": encode(noise(24, 32), "JPEG"),
  "progressive": encode(noise(24, 32), "JPEG", progressive=True),
  "png": encode(noise(24, 32)),
  "webp": encode(noise(24, 32), "WEBP"),
  "bmp": encode(noise(24, 32), "BMP"),
  "tiff": encode(noise(24, 32), "TIFF"),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@example(share=0.5)
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_images_are_complete_or_refused(kind, share):
  encoded = KINDS[kind]
  whole = decode(encoded, 16)
  try:
    decoded = decode(encoded[: int(share * len(encoded))], 16)
  except BadImage:
    return
  assert share > 0.5
  np.testing.assert_array_equal(decoded, whole)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damage_raises_no_other_exception(kind, data):
  damaged = bytearray(KINDS[kind])
  for _ in range(4):
    at = data.draw(st.integers(0, min(len(damaged), 200) - 1))
    damaged[at] = data.draw(st.integers(0, 255))
  try:
    decoded = decode(bytes(damaged), 16, max_pixels=10_000)
  except BadImage:
    return
  assert decoded.shape == (16, 16, 3)
