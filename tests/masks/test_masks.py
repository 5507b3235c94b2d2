"""Masks: bounds that hold for every key, and reproducibility by (seed, id)."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from ctx_encoder import masks, morphology
from ctx_encoder.config import MASK_KINDS
from ctx_encoder.data.silhouettes import load_silhouettes
from ctx_encoder.masks import regions

COUNT = 512
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def silhouettes(side=32):
  """A disc, a ring, a thin bar, a single pixel and everything."""
  y, x = np.mgrid[:side, :side]
  radius = np.hypot(y - side / 2, x - side / 3)
  shapes = np.zeros((5, side, side), np.uint8)
  shapes[0] = radius < side / 4
  shapes[1] = abs(radius - side / 4) < 2
  shapes[2, side // 2] = 1
  shapes[3, 1, 2] = 1
  shapes[4] = 1
  return shapes[..., None]


SAMPLERS = {
  "center": {"kind": "center"},
  "random_block": {"kind": "random_block"},
  "large_blocks": {
    "kind": "random_block",
    "block_count": 3,
    "block_min_side": 0.6,
    "block_max_side": 1.0,
    "block_max_area": 0.2,
  },
  "noise": {"kind": "random_region"},
  "shapes": {"kind": "random_region", "region": "shapes", "shapes": silhouettes()},
  "brush": {"kind": "brush"},
  "wide_brush": {"kind": "brush", "brush_width": 0.5, "brush_strokes": 2},
  "combined": {
    "kind": "combined",
    "probabilities": {"center": 1, "random_block": 1, "random_region": 1, "brush": 1},
  },
}
LONG = ("wide_brush", "combined")  # to compile
KINDS = ("random_block", "noise", "shapes", "brush")


@functools.cache
def make(name, size):
  """Returns a compiled function from a key and ids to masks."""
  sampler = masks.make_sampler(size=size, **SAMPLERS[name])
  return jax.jit(functools.partial(masks.for_examples, sampler))


@functools.cache
def drawn(name, size=64, seed=0):
  """Returns the masks of ids 0 to 511 for one seed."""
  return np.asarray(make(name, size)(jax.random.key(seed), jnp.arange(COUNT)))


def draw(kind, keys=64, **arguments):
  """Returns `[keys, S, S]` masks of a one-mask function."""
  sample = functools.partial(kind, **arguments)
  draw_all = jax.jit(functools.partial(masks.for_examples, sample))
  return np.asarray(draw_all(jax.random.key(0), jnp.arange(keys)))[..., 0]


@pytest.mark.parametrize(
  ("name", "size"),
  [(name, 64) for name in SAMPLERS if name not in LONG]
  + [slow(name, 64) for name in LONG]
  + [slow(name, size) for name in KINDS for size in (33, 128)],
)
def test_shape_values_and_area_for_every_key(name, size):
  result = drawn(name, size)
  assert result.shape == (COUNT, size, size, 1)
  assert result.dtype == np.float32
  assert set(np.unique(result)) == {0.0, 1.0}
  areas = result.mean((1, 2, 3))
  bound = 0.2 if name == "large_blocks" else 0.25
  assert areas.min() > 0
  assert areas.max() <= bound


@pytest.mark.parametrize("size", [16, 255, 256])
def test_noise_covers_20_to_30_percent(size):
  areas = draw(masks.region_noise, COUNT if size < 64 else 32, size=size).mean((1, 2))
  assert areas.min() >= (0.249 if size > 16 else 0.23)
  assert areas.max() <= 0.25


def test_noise_is_made_of_blobs_of_the_size_of_its_cells():
  """A few connected regions, as Pathak's, not salt and pepper."""
  regions = [ndimage.label(mask[..., 0])[1] for mask in drawn("noise")[:64]]
  assert 2 <= np.mean(regions) <= 24
  # All rows and columns are equally frequent: no pattern of the noise cells.
  frequency = drawn("noise", 64).mean((0, 3))
  assert np.abs(frequency - 0.25).max() < 0.12
  assert np.abs(frequency.mean(0) - 0.25).max() < 0.03
  assert np.abs(frequency.mean(1) - 0.25).max() < 0.03


def test_upsampling_is_pillows_bicubic():
  """Away from the border, where Pillow uses fewer pixels."""
  cell, size = 16, 64
  weights = regions._bicubic_weights(size, cell) / 128
  noise = np.random.default_rng(0).random((weights.shape[1],) * 2, np.float32)
  big = Image.fromarray(noise).resize(
    (cell * len(noise),) * 2, Image.Resampling.BICUBIC
  )
  # Row 0 of the weights lies 1.5 cells in.
  start = 3 * cell // 2
  expected = np.asarray(big)[start : start + len(weights), start : start + len(weights)]
  np.testing.assert_allclose(weights @ noise @ weights.T, expected, atol=0.02)


@pytest.mark.parametrize("name", ["large_blocks", *KINDS, *map(slow, LONG)])
def test_every_border_is_reached(name):
  reached = drawn(name).any((0, 3))
  for border in (reached[0], reached[-1], reached[:, 0], reached[:, -1]):
    assert border.mean() > 0.5
  assert reached.mean() > 0.98


@pytest.mark.parametrize("name", ["large_blocks", *KINDS, slow("wide_brush")])
def test_examples_and_seeds_get_different_masks(name):
  result = drawn(name)[:64].reshape(64, -1)
  assert len(np.unique(result, axis=0)) >= 60
  other = drawn(name, seed=1)[:64].reshape(64, -1)
  assert (result != other).any(1).mean() > 0.9


@pytest.mark.parametrize("name", [*KINDS, slow("combined")])
def test_one_mask_for_one_id_at_any_batch_size(name):
  index = np.array([500, 3, 3, 77, 2**31 - 1])
  batch = np.asarray(make(name, 64)(jax.random.key(0), jnp.asarray(index, jnp.int32)))
  np.testing.assert_array_equal(batch[:4], drawn(name)[index[:4]])
  # Ids have 31 bits: the last one equals no other.
  assert not (batch[4] == drawn(name)).all((1, 2, 3)).any()


@pytest.mark.parametrize(
  "name", ["noise", *map(slow, [k for k in KINDS if k not in ("center", "noise")])]
)
def test_the_mask_is_the_same_without_jit_and_vmap(name):
  sample = masks.make_sampler(size=64, **SAMPLERS[name])
  with jax.disable_jit():
    mask = sample(jax.random.fold_in(jax.random.key(0), 5))
  np.testing.assert_array_equal(np.asarray(mask), drawn(name)[5])


def test_center_is_the_middle_quarter():
  expected = np.zeros((128, 128, 1), np.float32)
  expected[32:96, 32:96] = 1
  np.testing.assert_array_equal(masks.center(128), expected)
  assert masks.center(65, fraction=0.5).sum() == 33**2
  assert masks.center(16, fraction=1.0).all()


def test_block_sides_are_within_their_bounds():
  result = draw(masks.random_block, COUNT, size=65, count=1)
  heights, widths = result.any(2).sum(1), result.any(1).sum(1)
  np.testing.assert_array_equal(heights * widths, result.sum((1, 2)))  # one rectangle
  # 0.15 and 0.4 of 65 pixels are 9.75 and 26; both ends are drawn.
  for sides in (heights, widths):
    assert (sides.min(), sides.max()) == (10, 26)


def test_blocks_are_as_many_as_fit():
  """Three squares of 1/16 stay below 1/4; with a bound of 1/8 the third is left out."""
  squares = {"size": 32, "count": 3, "min_side": 0.25, "max_side": 0.25}
  areas = draw(masks.random_block, COUNT, **squares, max_area=0.25).mean((1, 2))
  assert areas.max() == 3 / 16
  areas = draw(masks.random_block, COUNT, **squares, max_area=0.125).mean((1, 2))
  assert areas.max() == 2 / 16
  assert areas.min() >= 1 / 16


# The bounds of the configuration's fields, and sizes that are not powers of two.
@pytest.mark.parametrize(
  ("kind", "arguments", "area"),
  [
    (masks.random_block, {"size": 16, "min_side": 0.02, "max_side": 0.02}, 0.01),
    (masks.random_block, {"size": 37, "min_side": 1.0, "max_side": 1.0}, 0.01),
    (masks.random_block, {"size": 37, "min_side": 0.02, "max_side": 1.0}, 1.0),
    (masks.brush, {"size": 16, "width": 0.01, "strokes": 1}, 0.01),
    (masks.brush, {"size": 37, "width": 0.5, "strokes": 1}, 0.02),
    slow(masks.brush, {"size": 37, "width": 0.5, "strokes": 8}, 0.5),
    (masks.region_noise, {"size": 37}, 0.1),
    # Rotation and rounding can enlarge a small square.
    (masks.region_shapes, {"size": 16, "shapes": np.ones((1, 4, 4, 1))}, 0.25),
    (masks.region_shapes, {"size": 16, "shapes": np.ones((1, 4, 4, 1))}, 1 / 16),
  ],
)
def test_areas_are_within_any_bound(kind, arguments, area):
  bound = "area" if kind is masks.region_noise else "max_area"
  areas = draw(kind, COUNT, **arguments, **{bound: area}).sum((1, 2))
  assert areas.min() > 0
  assert areas.max() <= area * arguments["size"] ** 2


@pytest.mark.parametrize("width", [0.05, 0.25])
def test_brush_strokes_have_the_given_width(width):
  """The largest distance to the known pixels is half of a stroke's width."""
  result = draw(masks.brush, size=128, strokes=1, width=width)
  inner = [ndimage.distance_transform_edt(np.pad(mask, 1)).max() for mask in result]
  # Widths are from half of it to all of it, more where pieces join.
  assert 0.25 * width * 128 <= min(inner) < 0.4 * width * 128
  assert 0.35 * width * 128 < np.median(inner) < 0.6 * width * 128


def test_a_stroke_is_one_piece():
  eight = np.ones((3, 3))
  result = draw(masks.brush, size=64, strokes=1, width=0.03)
  assert all(ndimage.label(mask, eight)[1] == 1 for mask in result)


def inner(result):
  """Returns the masks that do not touch the border."""
  return [m for m in result if not (m[[0, -1]].any() or m[:, [0, -1]].any())]


def test_shapes_are_scaled():
  """A disc stays a disc, with an area from half of the bound to the bound."""
  disc = silhouettes(64)[:1]
  whole = inner(draw(masks.region_shapes, 128, size=64, shapes=jnp.asarray(disc)))
  assert len(whole) > 20
  for mask in whole:
    height, width = mask.any(1).sum(), mask.any(0).sum()
    assert abs(height - width) <= 2
    assert abs(mask.sum() - np.pi * (height / 2) ** 2) <= 0.12 * mask.sum()
  areas = np.array([mask.mean() for mask in whole])
  assert 0.115 <= areas.min() < 0.14
  assert 0.2 < areas.max() <= 0.25


def test_shapes_are_rotated_and_flipped():
  """The letter L has all orientations, and so has its mirror image."""
  letter = np.zeros((1, 32, 32, 1), np.uint8)
  letter[0, 4:28, 8:14] = 1
  letter[0, 22:28, 8:24] = 1
  whole = inner(draw(masks.region_shapes, 256, size=64, shapes=jnp.asarray(letter)))
  assert len(whole) >= 30
  foot = np.pad(letter[0, ..., 0], 16).astype(float)
  turned = {
    (flipped, angle): ndimage.rotate(
      foot[:, ::-1] if flipped else foot, angle, reshape=False, order=1
    )
    for flipped in (False, True)
    for angle in range(0, 360, 15)
  }
  best = []
  for mask in whole:
    # A mask of the letter's area, in the middle.
    scale = np.sqrt(foot.sum() / mask.sum())
    middle = ndimage.center_of_mass(mask)
    place = [at - 31.5 / scale for at in middle]
    fitted = ndimage.affine_transform(mask, [1 / scale] * 2, place, (64, 64), order=1)
    overlaps = {key: _overlap(fitted, shape) for key, shape in turned.items()}
    best.append(max(overlaps, key=overlaps.get))
    assert overlaps[best[-1]] > 0.75
  flipped, angles = np.array(best).T
  assert 0.3 < flipped.mean() < 0.7
  assert len(np.unique(angles // 90)) == 4


def _overlap(mask, shape):
  """Returns intersection over union after moving the shape to the mask's centre."""
  centres = (ndimage.center_of_mass(x) for x in (mask, shape))
  shift = [round(a - b) for a, b in zip(*centres, strict=True)]
  moved = np.roll(shape, shift, (0, 1)) > 0.5  # its margins are empty
  return (moved & (mask > 0.5)).sum() / (moved | (mask > 0.5)).sum()


def test_combined_draws_in_ratio_of_the_weights():
  probabilities = {"center": 3.0, "random_block": 1.0, "brush": 0.0}
  sample = masks.make_sampler("combined", 32, probabilities=probabilities)
  result = draw(sample, 2000)
  is_center = (result == np.asarray(masks.center(32))[..., 0]).all((1, 2))
  assert abs(is_center.mean() - 0.75) < 0.04


def test_combined_does_not_trace_samplers_of_weight_0():
  def never(key):
    raise AssertionError("traced")

  sample = functools.partial(
    masks.combined, samplers=[never, lambda key: masks.center(16)], weights=[0, 2]
  )
  np.testing.assert_array_equal(sample(jax.random.key(0)), masks.center(16))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"kind": "centre"}, "no mask kind 'centre'"),
    ({"kind": "random_region", "region": "voc"}, "noise or shapes, not 'voc'"),
    ({"kind": "random_region", "region": "shapes"}, "needs silhouettes"),
    (
      {"kind": "random_region", "region": "shapes", "shapes": np.ones((2, 8, 8))},
      r"\[N, s, s, 1\]",
    ),
    (
      {"kind": "random_region", "region": "shapes", "shapes": np.zeros((2, 8, 8, 1))},
      "at least one silhouette",
    ),
    ({"kind": "combined", "probabilities": {"center": 0.0}}, "not all 0"),
    ({"kind": "combined", "probabilities": {"centre": 1.0}}, "do not exist"),
  ],
)
def test_bad_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    masks.make_sampler(size=32, **arguments)


def test_every_kind_of_the_configuration_has_a_sampler():
  for kind in MASK_KINDS:
    key = jax.random.key(0)
    assert jax.eval_shape(masks.make_sampler(kind, 16), key).shape == (16, 16, 1)
    only = masks.make_sampler("combined", 16, probabilities={kind: 1})
    assert 0 < jax.jit(only)(key).mean() < 1
  with pytest.raises(ValueError, match=f"kinds: {', '.join(MASK_KINDS)}, combined"):
    masks.make_sampler("triangle", 16)


@pytest.mark.parametrize("width", [0, 1, 4, 7])
def test_border_ring_is_scipys_dilation_without_the_hole(width):
  mask = drawn("noise")[:4]
  ring = np.asarray(morphology.border_ring(jnp.asarray(mask), width))
  assert ring.shape == mask.shape
  square = np.ones((2 * width + 1, 2 * width + 1), bool)
  for one, hole in zip(ring[..., 0], mask[..., 0], strict=True):
    expected = ndimage.binary_dilation(hole > 0, square) & (hole == 0)
    np.testing.assert_array_equal(one > 0, expected)
  np.testing.assert_array_equal(
    morphology.border_ring(jnp.asarray(mask[0]), width), ring[0]
  )


def test_border_ring_refuses_a_negative_width():
  with pytest.raises(ValueError, match="-1"):
    morphology.border_ring(masks.center(16), -1)


@pytest.mark.parametrize(
  ("fill", "expected"),
  [
    ("black", (0, 0, 0)),
    ("white", (1, 1, 1)),
    ("mean", (51 / 255, 102 / 255, 1)),
    ("#ff0080", (1, 0, 128 / 255)),
    ("#A0b0C0", (160 / 255, 176 / 255, 192 / 255)),
  ],
)
def test_fill(fill, expected):
  color = masks.parse_fill(fill, mean=(51, 102, 255))
  assert color.dtype == np.float32
  np.testing.assert_allclose(color, expected, atol=1e-7)


@pytest.mark.parametrize("fill", ["", "red", "ff0080", "#ff008", "#ff00800", "#gg0000"])
def test_bad_fill(fill):
  with pytest.raises(ValueError, match="#rrggbb"):
    masks.parse_fill(fill, mean=(0, 0, 0))


def test_masked_image_replaces_the_hole_only():
  image = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
  mask = np.broadcast_to(np.asarray(masks.center(16)), (2, 16, 16, 1))
  result = np.asarray(masks.masked_image(image, mask, np.float32([0.1, 0.2, 0.3])))
  expected = np.where(mask > 0, np.float32([0.1, 0.2, 0.3]), image)
  np.testing.assert_array_equal(result, expected)
  one = masks.masked_image(image[0], mask[0], -1.0)
  np.testing.assert_array_equal(one, np.where(mask[0] > 0, -1, image[0]))


smooth_fill = jax.jit(masks.smooth_fill)


def pull_push_by_hand(image, known):
  """Pull-push in float64 with loops, for square images with sides of a power of two."""
  side = len(image)
  if side == 1:
    return image * known
  blocks = known.reshape(side // 2, 2, side // 2, 2, 1).sum((1, 3))
  colors = (image * known).reshape(side // 2, 2, side // 2, 2, -1).sum((1, 3))
  mean = np.divide(colors, blocks, out=np.zeros_like(colors), where=blocks > 0)
  coarser = pull_push_by_hand(mean, np.minimum(blocks, 1))
  larger = cv2.resize(coarser, (side, side), interpolation=cv2.INTER_LINEAR)
  return known * image + (1 - known) * larger.reshape(image.shape)


@pytest.mark.parametrize("name", ["center", "random_block", "noise", "brush"])
def test_smooth_fill_is_pull_push(name):
  image = np.random.default_rng(1).random((3, 64, 64, 3))
  mask = drawn(name)[:3]
  filled = smooth_fill(jnp.float32(image), mask)
  known = 1 - np.asarray(mask, np.float64)
  expected = np.stack(
    [pull_push_by_hand(*each) for each in zip(image, known, strict=True)]
  )
  np.testing.assert_allclose(filled, expected, atol=2e-6)
  np.testing.assert_array_equal(filled * known, np.float32(image) * known)
  one = jax.jit(masks.masked_image)(jnp.float32(image[0]), mask[0], None)
  np.testing.assert_allclose(one, filled[0], atol=1e-6)


@given(st.sampled_from([(1, 1), (6, 1), (20, 13)]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_smooth_fill_stays_between_the_known_colours(shape, seed):
  height, width = shape
  rng = np.random.default_rng(seed)
  image = rng.uniform(-1, 1, (height, width, 2)).astype(np.float32)
  mask = np.float32(rng.random((height, width, 1)) < 0.7)
  mask[rng.integers(height), rng.integers(width)] = 0
  filled = np.asarray(smooth_fill(image, mask))
  known = image[mask[..., 0] == 0]
  assert (filled >= known.min(0) - 1e-5).all()
  assert (filled <= known.max(0) + 1e-5).all()


def test_smooth_fill_of_nothing_known_is_empty():
  filled = masks.smooth_fill(jnp.ones((8, 8, 3)), jnp.ones((8, 8, 1)))
  np.testing.assert_array_equal(filled, 0)


class TestSilhouettes:
  def write(self, folder, name, pixels, mode=None):
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels, mode).save(folder / name)

  def test_fits_each_hole_into_a_square(self, tmp_path):
    wide = np.zeros((40, 90), np.uint8)
    wide[10:20, 30:70] = 255
    self.write(tmp_path, "b.png", wide)
    self.write(tmp_path, "a.png", np.full((20, 20), 255, np.uint8))
    self.write(tmp_path, "empty.png", np.zeros((20, 20), np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    result = load_silhouettes(str(tmp_path), 16)
    assert result.shape == (2, 16, 16, 1)
    assert result.dtype == np.uint8
    assert result[0].all()
    expected = np.zeros((16, 16), np.uint8)
    expected[6:10] = 1
    np.testing.assert_array_equal(result[1, ..., 0], expected)

  def test_inverted(self, tmp_path):
    dark = np.full((16, 16), 255, np.uint8)
    dark[4:12, 4:12] = 0
    self.write(tmp_path, "a.png", dark)
    assert load_silhouettes(str(tmp_path), 8, inverted=True).all()

  def test_label_maps(self, tmp_path):
    labels = np.zeros((16, 16), np.uint8)
    labels[2:10, 2:10] = 8
    labels[2:10, 10] = 255
    image = Image.fromarray(labels)
    image.putpalette([value // 4 for value in range(256) for _ in range(3)])
    image.save(tmp_path / "voc.png")
    assert load_silhouettes(str(tmp_path), 8).all()

  def test_a_thin_line_is_not_lost(self, tmp_path):
    line = np.zeros((512, 512), np.uint8)
    line[np.arange(512), np.arange(512)] = 255
    self.write(tmp_path, "line.png", line)
    assert load_silhouettes(str(tmp_path), 16)[0].any()

  def test_errors_name_the_remedy(self, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
      load_silhouettes(str(tmp_path / "missing"), 16)
    with pytest.raises(ValueError, match="No mask images"):
      load_silhouettes(str(tmp_path), 16)
    self.write(tmp_path, "a.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"None of the 1 .* has a hole"):
      load_silhouettes(str(tmp_path), 16)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(ValueError, match=r"b\.png cannot be read"):
      load_silhouettes(str(tmp_path), 16)
