"""Filling holes in pictures of any size, and the command inpaint."""

import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ctx_encoder import inpaint, masks, xla
from ctx_encoder.apps import cli
from ctx_encoder.apps.commands import inpaint as inpaint_command
from ctx_encoder.inpaint import Inpainter, blending, regions, texture

S = 16  # side of the networks' inputs
PAINT = np.array([200, 40, 90], np.uint8)


def flat(images, holes, keys):
  """A network that fills holes with one colour."""
  del keys
  return np.where(holes > 0, PAINT, images)


def centre_only(images, holes, keys):
  """Like `flat` in the centre half; fills holes elsewhere with black."""
  reached = np.zeros((S, S, 1), bool)
  reached[S // 4 : -S // 4, S // 4 : -S // 4] = True
  return np.where(holes > 0, np.where(reached, PAINT, np.uint8(0)), images)


@jax.jit
def _smooth(images, holes):
  filled = masks.smooth_fill(images.astype(jnp.float32), holes.astype(jnp.float32))
  return jnp.round(filled).astype(jnp.uint8)


def smooth(images, holes, keys):
  """A network that interpolates smoothly from the known pixels."""
  del keys
  return np.asarray(_smooth(images, holes))


FLAT = Inpainter(flat, S)
SMOOTH = Inpainter(smooth, S)


def noise(height, width, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def rectangles(height, width, *boxes):
  mask = np.zeros((height, width), bool)
  for top, left, bottom, right in boxes:
    mask[top:bottom, left:right] = True
  return mask


@st.composite
def pictures(draw):
  """Returns (uint8 image, bool mask) with a few rectangles as holes, and a seed."""
  height, width = draw(st.integers(8, 60)), draw(st.integers(8, 60))
  boxes = []
  for _ in range(draw(st.integers(1, 3))):
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom = draw(st.integers(top + 1, height))
    right = draw(st.integers(left + 1, width))
    boxes.append((top, left, bottom, right))
  mask = rectangles(height, width, *boxes)
  mask[tuple(draw(st.integers(0, size - 1)) for size in mask.shape)] = False
  if not mask.any():
    mask[0, 0], mask[-1, -1] = True, False
  return noise(height, width, draw(st.integers(0, 99))), mask


# Strategies


@settings(max_examples=60, deadline=None)
@given(pictures(), st.sampled_from(inpaint.STRATEGIES))
def test_only_the_holes_are_filled(picture, strategy):
  image, mask = picture
  completed = FLAT(image, mask, strategy=strategy, blend="none")
  assert completed.dtype == np.uint8
  np.testing.assert_array_equal(completed[~mask], image[~mask])
  if image.shape == (S, S, 3) or strategy == "tiles":
    assert (completed[mask] == PAINT).all()
  inner = blending.ndimage.binary_erosion(mask, iterations=8)
  if strategy == "crops":  # scaled, so that colours mix at the rim
    assert (completed[inner] == PAINT).all()


@settings(max_examples=60, deadline=None)
@given(pictures(), st.sampled_from(inpaint.STRATEGIES), st.sampled_from(inpaint.BLENDS))
def test_hidden_pixels_have_no_influence(picture, strategy, blend):
  image, mask = picture
  other = np.where(mask[..., None], 255 - image, image)
  one = SMOOTH(image, mask, strategy=strategy, blend=blend)
  np.testing.assert_array_equal(
    one, SMOOTH(other, mask, strategy=strategy, blend=blend)
  )
  if blend != "feather":
    np.testing.assert_array_equal(one[~mask], image[~mask])


@pytest.mark.parametrize("strategy", ["auto", "crops", "tiles"])
@pytest.mark.parametrize(
  ("shape", "box"),
  [
    ((50, 70), (20, 30, 28, 38)),
    ((50, 70), (0, 0, 20, 20)),
    ((50, 70), (0, 10, 50, 20)),
    ((50, 70), (5, 5, 45, 65)),
    ((9, 70), (0, 20, 9, 60)),
    ((10, 12), (2, 2, 9, 12)),
  ],
)
def test_a_network_for_the_centre_fills_complete_holes(strategy, shape, box):
  image = np.full((*shape, 3), 120, np.uint8)
  mask = rectangles(*shape, box)
  inpainter = Inpainter(centre_only, S, reach=0.5)
  completed = inpainter(image, mask, strategy=strategy, blend="none")
  np.testing.assert_array_equal(completed[~mask], image[~mask])
  # Scaling mixes the two colours, and the cubic filter overshoots by a fraction of
  # their difference; pixels out of the network's reach would be black.
  low, high = np.minimum(120, PAINT), np.maximum(120, PAINT)
  slack = 0 if strategy == "tiles" else 20
  painted = completed[mask].astype(int)
  assert (painted >= low - slack).all()
  assert (painted <= high + slack).all()
  if strategy == "tiles":
    assert (painted == PAINT).all()


def test_whole_needs_a_network_for_the_complete_square():
  inpainter = Inpainter(centre_only, S, reach=0.5)
  with pytest.raises(ValueError, match="use the strategy crops"):
    inpainter(noise(20, 20), rectangles(20, 20, (0, 0, 2, 2)), strategy="whole")


@pytest.mark.parametrize("strategy", inpaint.STRATEGIES)
def test_a_smooth_picture_is_restored(strategy):
  """A linear gradient that a smooth fill restores, larger than the network."""
  rows, columns = np.mgrid[:90, :120]
  image = np.stack([50 + rows, 40 + columns, 200 - rows], 2).astype(np.uint8)
  mask = rectangles(90, 120, (10, 20, 30, 44), (60, 80, 66, 110), (40, 0, 43, 120))
  completed = SMOOTH(image, mask, strategy=strategy)
  error = np.abs(completed.astype(int) - image)[mask]
  assert error.mean() < 4
  assert error.max() < 24


def test_crops_are_scaled_to_their_holes():
  seen = []

  def network(images, holes, keys):
    seen.extend(zip(images, holes[..., 0] > 0, strict=True))
    return flat(images, holes, keys)

  image = noise(200, 300)
  mask = rectangles(200, 300, (10, 10, 14, 16), (100, 150, 164, 214))
  Inpainter(network, S)(image, mask, strategy="crops", blend="none")
  (small, small_hole), (large, large_hole) = seen[:2]
  known = ~small_hole
  box = image[4:20, 5:21]  # of the network's size: not scaled
  np.testing.assert_array_equal(small[known], box[known])
  assert small_hole.sum() == 4 * 6
  assert large_hole.sum() == (S // 2) ** 2
  assert large[~large_hole].std() < small[known].std() / 4  # averages


@pytest.mark.parametrize("share", [None, 0.4])
@pytest.mark.parametrize("box", [(0, 0, 8, 4000), (2, 5, 3, 7), (0, 3, 8, 3990)])
def test_crops_of_long_pictures_are_small(box, share):
  top, left, bottom, right = box
  hole = regions.Box(top, left, bottom - top, right - left)
  shown = regions.around(hole, S, (8, 4000), share)
  assert shown.height * shown.width <= 8 * 8 * 4000
  assert shown.top <= top
  assert shown.left <= left
  assert shown.top + shown.height >= bottom
  assert shown.left + shown.width >= right


@pytest.mark.slow
def test_a_large_hole_gets_the_pictures_texture():
  """A striped picture; the network's fill is its smooth interpolation."""
  rows, columns = np.mgrid[:128, :128]
  stripes = np.where(columns // 4 % 2, 200, 60)
  image = np.where((rows < 64)[..., None], 230, np.stack([stripes] * 3, 2))
  image = image.astype(np.uint8)
  mask = rectangles(128, 128, (84, 44, 112, 76))
  inpainter = Inpainter(smooth, 32)
  rough = {}
  for strategy in ("crops", "texture", "auto"):
    completed = inpainter(image, mask, strategy=strategy)
    np.testing.assert_array_equal(completed[~mask], image[~mask])
    rough[strategy] = completed[mask].std() / image[mask].std()
  assert rough["crops"] < 0.5
  assert 0.75 < rough["texture"] < 1.25
  assert rough["auto"] == rough["texture"]


def test_texture_comes_only_from_known_pixels():
  image, hidden = noise(96, 80), rectangles(96, 80, (20, 16, 70, 60))
  fill = noise(32, 32, seed=1)
  painted = texture.paint(image, hidden, fill)
  other = np.where(hidden[..., None], 255 - image, image)
  np.testing.assert_array_equal(painted, texture.paint(other, hidden, fill))
  everywhere = rectangles(96, 80, (0, 0, 94, 80))
  assert texture.paint(image, everywhere, fill) is None


def test_progress_ends_at_one_and_may_stop_the_work():
  image = noise(90, 120)
  mask = rectangles(90, 120, (10, 20, 30, 44), (60, 5, 66, 115), (40, 0, 43, 120))
  for strategy in ("auto", "crops", "tiles"):
    shares = []
    FLAT(image, mask, strategy=strategy, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
  assert len(shares) > 3

  class Stop(Exception):
    pass

  calls = []

  def network(images, holes, keys):
    calls.append(len(images))
    return flat(images, holes, keys)

  def stop(share):
    raise Stop

  with pytest.raises(Stop):
    Inpainter(network, S)(image, mask, strategy="tiles", progress=stop)
  assert len(calls) == 1


def test_a_long_stroke_needs_few_tiles_of_at_most_two_batch_sizes():
  sizes = []

  def network(images, holes, keys):
    sizes.append(len(images))
    return flat(images, holes, keys)

  mask = rectangles(200, 1200, (97, 10, 101, 1190))
  Inpainter(network, S)(noise(200, 1200), mask, blend="none")
  assert len(set(sizes)) <= 2
  # Half overlapping tiles in one row, where the stroke is in their centre.
  assert sum(sizes) < 1.5 * 1190 / (S / 2)


def test_near_parts_are_one_hole():
  mask = rectangles(100, 100, (10, 10, 12, 12), (13, 10, 15, 12), (80, 80, 90, 90))
  found = regions.holes(mask, 4)
  assert [pixels.shape[1] for pixels in found] == [8, 100]
  for pixels in found:
    assert mask[tuple(pixels)].all()


@settings(max_examples=40, deadline=None)
@given(pictures(), st.integers(1, 9))
def test_holes_partition_the_mask(picture, reach):
  _, mask = picture
  again = np.zeros(mask.shape, int)
  for pixels in regions.holes(mask, reach):
    np.add.at(again, tuple(pixels), 1)
  np.testing.assert_array_equal(again, mask.astype(int))


def test_scaling_averages_only_known_pixels():
  image = np.full((64, 64, 3), 100, np.uint8)
  hole = rectangles(64, 64, (13, 13, 37, 50))
  image[hole] = 255
  small, small_hole = regions.to_network(image, hole, S)
  assert (small[~small_hole] == 100).all()
  assert abs(small_hole.mean() - hole.mean()) < 0.05


# Blending


def dense_membrane(values, hole, known):
  """Sets up the same equations one by one, and solves them as a dense system."""
  inside = [tuple(place) for place in np.argwhere(hole).tolist()]
  number = {place: n for n, place in enumerate(inside)}
  fixed = {tuple(place) for place in np.argwhere(known).tolist()}
  matrix = np.zeros((len(inside), len(inside)))
  right = np.zeros((len(inside), values.shape[2]))
  for (row, column), n in number.items():
    for down, along in ((-1, 0), (1, 0), (0, -1), (0, 1)):
      place = row + down, column + along
      matrix[n, n] += place in number or place in fixed
      if place in number:
        matrix[n, number[place]] -= 1
      elif place in fixed:
        right[n] += values[place]
  result = np.zeros(values.shape)
  result[hole] = np.linalg.lstsq(matrix, right)[0]
  return result


@pytest.mark.parametrize(
  "boxes",
  [[(3, 4, 20, 17)], [(0, 0, 12, 30)], [(5, 5, 8, 8), (15, 10, 30, 29)]],
)
def test_the_membrane_solves_laplaces_equation(boxes):
  hole = rectangles(32, 30, *boxes)
  known = ~hole & ~rectangles(32, 30, (20, 15, 24, 25))
  values = np.random.default_rng(0).normal(0, 40, (32, 30, 2))
  expected = dense_membrane(values, hole, known)
  np.testing.assert_allclose(blending.membrane(values, hole, known), expected, atol=0.5)


def test_a_large_membrane_restores_a_plane():
  """Linear functions are harmonic; this size needs several resolutions."""
  rows, columns = np.mgrid[:150, :200].astype(float)
  values = np.stack([0.5 * rows - 0.3 * columns, columns - 90], 2)
  hole = rectangles(150, 200, (5, 9, 140, 190))
  found = blending.membrane(values, hole, ~hole)
  np.testing.assert_allclose(found[hole], values[hole], atol=1)


def test_poisson_uses_only_gradients():
  image = noise(40, 40) // 2
  hole = rectangles(40, 40, (10, 12, 30, 33))
  painted = image + np.array([90, 30, 60], np.uint8)  # a constant offset
  completed = blending.blend(image, painted, hole, ~hole, how="poisson", ring=2)
  np.testing.assert_allclose(completed.astype(int), image, atol=1)


def test_feathering_fades_over_the_ring():
  image, generated = (
    np.zeros((30, 30, 3), np.uint8),
    np.full((30, 30, 3), 240, np.uint8),
  )
  hole = rectangles(30, 30, (10, 10, 20, 20))
  known = ~hole & ~rectangles(30, 30, (0, 20, 30, 30))
  mixed = blending.blend(image, generated, hole, known, how="feather", ring=3)[15, :, 0]
  np.testing.assert_array_equal(mixed[6:11], [0, 60, 120, 180, 240])
  assert (mixed[20:] == 0).all()  # another hole


# Inputs and outputs


def test_kinds_of_pictures(tmp_path):
  image, mask = noise(30, 40), rectangles(30, 40, (5, 5, 15, 20))
  run = functools.partial(SMOOTH, blend="none")
  expected = run(image, mask)
  Image.fromarray(image).save(tmp_path / "image.png")
  Image.fromarray(mask).save(tmp_path / "mask.png")
  for kind in (mask[..., None], mask.astype(np.uint8), 255 * mask.astype(np.uint8)):
    np.testing.assert_array_equal(run(image, kind), expected)
  found = run(str(tmp_path / "image.png"), tmp_path / "mask.png")
  np.testing.assert_array_equal(found, expected)
  content = (tmp_path / "image.png").read_bytes()
  np.testing.assert_array_equal(run(content, mask), expected)
  found = run(Image.fromarray(image), Image.fromarray(mask))
  assert isinstance(found, Image.Image)
  np.testing.assert_array_equal(np.asarray(found), expected)
  for array in (np.asarray, jnp.asarray, memoryview):
    found = run(array(image), array(mask))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected)
  for array in (np.stack, jnp.stack):
    both = run(array([image, image]), array([mask, mask]))
    np.testing.assert_array_equal(both, np.stack([expected, expected]))


@pytest.mark.slow
def test_lists_give_the_same_as_single_pictures():
  sizes = [(20 + 7 * i, 90 - 5 * i) for i in range(9)]
  images = [noise(*size, seed=i) for i, size in enumerate(sizes)]
  holes = [
    rectangles(*size, (3, 3, 9, 12), (12, 25, 19, 30 + 2 * i))
    for i, size in enumerate(sizes)
  ]
  given = [Image.fromarray(images[0]), *images[1:]]
  together = SMOOTH(given, holes)
  assert isinstance(together[0], Image.Image)
  for image, mask, completed in zip(images, holes, together, strict=True):
    np.testing.assert_array_equal(SMOOTH(image, mask), np.asarray(completed))


def test_the_seed_determines_the_noise():
  def network(images, holes, keys):
    drawn = jax.vmap(lambda key: jax.random.randint(key, (S, S, 3), 0, 256))(keys)
    return np.where(holes > 0, np.asarray(drawn).astype(np.uint8), images)

  image, mask = noise(S, S), rectangles(S, S, (4, 4, 12, 12))
  inpainter = Inpainter(network, S)
  one = inpainter(image, mask, seed=1)
  np.testing.assert_array_equal(one, inpainter(image, mask, seed=1))
  assert (one != inpainter(image, mask, seed=2)).any()


IMAGE, MASK = noise(20, 30), rectangles(20, 30, (2, 2, 5, 5))


def test_bad_input_is_named():
  for image, mask, options, message in (
    (IMAGE, MASK.T, {}, "the image is 30x20 pixels and the mask 20x30"),
    (IMAGE, np.zeros((20, 30)), {}, "the mask has no hole"),
    (IMAGE, np.ones((20, 30)), {}, "hides everything .* inverted"),
    (IMAGE / 255, MASK, {}, r"uint8 \[height, width, 3\], not float64 \[20, 30, 3\]"),
    (IMAGE[..., 0], MASK, {}, r"not uint8 \[20, 30\]"),
    (
      IMAGE,
      MASK[None, None],
      {},
      r"A mask must be \[height, width\], .* not bool \[1, 1, 20, 30\]",
    ),
    (IMAGE, MASK, {"strategy": "best"}, "no strategy 'best'; there are auto, whole"),
    (IMAGE, MASK, {"blend": "mix"}, "no blend 'mix'; there are none"),
    (b"no picture", MASK, {}, "not a picture"),
    ([IMAGE, IMAGE], [MASK], {}, "2 images and 1 masks"),
    ([IMAGE, IMAGE], [MASK, MASK.T], {}, "Image 1: the image is 30x20"),
  ):
    with pytest.raises(ValueError, match=message):
      SMOOTH(image, mask, **options)


def test_holes_of_a_colour():
  image = noise(60, 60) // 2
  image[10:30, 20:50] = (250, 3, 249)  # about #ff00ff, as after JPEG compression
  image[50, 50] = (255, 0, 255)  # too small
  found = inpaint.hole_of_color(image, (255, 0, 255))
  np.testing.assert_array_equal(found, rectangles(60, 60, (10, 20, 30, 50)))
  assert not inpaint.hole_of_color(image, (255, 0, 255), tolerance=5).any()
  np.testing.assert_array_equal(
    inpaint.grown(found, 3), rectangles(60, 60, (7, 17, 33, 53))
  )


# Network of a run, and the command


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  root = tmp_path_factory.mktemp("runs") / "one"
  return tiny.untrained_run(root, 3, model__width=1 / 16)


def test_a_runs_network(workdir):
  inpainter = Inpainter.from_workdir(workdir)
  assert inpainter.image_size == tiny.SIZE
  assert inpainter.name == tiny.config().name
  image, mask = noise(40, 50), rectangles(40, 50, (8, 8, 20, 20))
  completed = inpainter(image, mask)
  np.testing.assert_array_equal(completed[~mask], image[~mask])
  assert (completed[mask] != image[mask]).any()


@pytest.fixture
def folder(tmp_path):
  """Three pictures, masks for two of them, and a file that is not a picture."""
  (tmp_path / "in").mkdir()
  (tmp_path / "masks").mkdir()
  for number, name in enumerate(("one", "two", "three")):
    Image.fromarray(noise(30, 40, number)).save(tmp_path / "in" / f"{name}.png")
  for name in ("one", "two"):
    mask = rectangles(30, 40, (5, 5, 15, 25))
    Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.bmp")
  (tmp_path / "in" / "four.jpg").write_bytes(b"none")
  return tmp_path


@pytest.fixture
def command(workdir, folder, monkeypatch, capsys):
  monkeypatch.chdir(folder)
  # Keeps the compilation cache of the tests.
  monkeypatch.setattr(xla, "cache_in", lambda folder: None)
  monkeypatch.setattr(inpaint_command, "_PATIENCE", 3600)  # on the slowest machine

  def run(words):
    code = cli.main(["inpaint", "--workdir", str(workdir), *words.split()])
    streams = capsys.readouterr()
    return code, streams.out, streams.err

  return run


def opened(path):
  return np.asarray(Image.open(path))


def test_one_picture(command, folder):
  words = "--image in/one.png --mask masks/one.bmp --output out.png --grid"
  assert command(words)[:2] == (0, "out.png\n")
  mask = opened("masks/one.bmp")
  np.testing.assert_array_equal(opened("out.png")[~mask], opened("in/one.png")[~mask])
  assert (opened("out.png")[mask] != opened("in/one.png")[mask]).any()
  assert opened("out.grid.png").shape[1] > 3 * 40
  inverted = Image.fromarray(~mask)
  inverted.save("inverted.png")
  again = "--image in/one.png --mask inverted.png --mask-polarity black"
  assert command(f"{again} --output again.png")[0] == 0
  np.testing.assert_array_equal(opened("again.png"), opened("out.png"))


def test_one_picture_that_takes_long_shows_its_progress(command, monkeypatch):
  words = "--image in/one.png --mask masks/one.bmp --output out.png"
  assert command(words) == (0, "out.png\n", "")
  monkeypatch.setattr(inpaint_command, "_PATIENCE", 0)
  assert "100 % filled" in command(words)[2]


def test_a_hole_painted_into_the_picture(command):
  image = opened("in/one.png").copy()
  image[5:15, 5:25] = (0, 255, 0)
  Image.fromarray(image).save("holed.png")
  assert command("--image holed.png --hole-color #00ff00 --output out.png")[0] == 0
  assert command("--image in/one.png --mask masks/one.bmp --output same.png")[0] == 0
  np.testing.assert_array_equal(opened("out.png"), opened("same.png"))
  code, _, errors = command("--image in/one.png --hole-color black --output none.png")
  assert (code, errors.strip()) == (
    1,
    "ctx-encoder inpaint: in/one.png: there is no hole of colour black; a larger"
    " --hole-tolerance finds more.",
  )


def test_a_folder_with_unusable_files(command, folder):
  code, out, errors = command("--image in --mask masks --output out")
  assert code == 1
  assert out == "2 of 4 pictures are in out.\n"
  assert "in/three.png: there is no mask of that name in masks." in errors
  assert "in/four.jpg: not a picture" in errors
  assert sorted(path.name for path in (folder / "out").iterdir()) == [
    "one.png",
    "two.png",
  ]
  code, _, errors = command(
    "--image in/*.png in/four.jpg --mask masks/one.bmp --output o"
  )
  assert code == 1
  assert errors.count("ctx-encoder inpaint:") == 1
  assert "in/four.jpg: not a picture" in errors


def test_names_cannot_command_the_terminal(command, folder):
  (folder / "odd").mkdir()
  for name in ("a\x1b[2J.png", "b\n.png"):
    (folder / "odd" / name).write_bytes(b"")
  code, out, errors = command("--image odd --hole-color black --output out\x1b[2J")
  assert code == 1
  assert out == r"0 of 2 pictures are in out\x1b[2J." + "\n"
  assert r"odd/a\x1b[2J.png: " in errors
  assert r"odd/b\n.png: " in errors


def test_bad_arguments_are_named_at_once(command, monkeypatch):
  monkeypatch.setattr(Inpainter, "from_workdir", None)  # not reached
  for words, message in (
    ("--image in --output out", "Give either --mask or --hole-color."),
    ("--image in --mask m --hole-color white --output out", "Give either --mask"),
    ("--image nowhere --mask masks --output out", "There is no picture at nowhere."),
    ("--image in/*.gif --mask masks --output o", "There is no picture at in/*.gif."),
    ("--image in --mask nowhere --output out", "There is no mask at nowhere."),
    ("--image in --mask in/empty --output out", "There is no mask at in/empty."),
    ("--image in/three.png --mask masks --output o.png", "No picture has a mask in"),
    ("--image in/one.png --mask masks --output in/one.png", "choose another --output"),
    ("--image in --mask masks --output in", "is one of the inputs"),
    (
      "--image in/one.png --mask masks --output out.xyz",
      "its extension must be one of",
    ),
    ("--image in --mask masks --output masks/one.bmp", "several pictures need a"),
    ("--image in --hole-color smooth --output out", "white, black or #rrggbb, not sm"),
    ("--image in --mask masks --output out --grow -1", "--grow must be at least 0"),
    ("--image in --hole-color white --hole-tolerance 999 --output o", "[0, 255]"),
  ):
    code, out, errors = command(words)
    assert (code, out) == (1, "")
    assert message in errors
    assert errors.startswith("ctx-encoder inpaint: ")
    assert errors.count("\n") == 1


def test_a_missing_run_is_named_with_the_remedy(folder, monkeypatch, capsys):
  monkeypatch.chdir(folder)
  words = "inpaint --workdir nowhere --image in --mask masks --output out"
  assert cli.main(words.split()) == 1
  assert "Train one: python launch.py" in capsys.readouterr().err
  assert not (folder / "nowhere").exists()


@pytest.mark.slow  # a process of its own
def test_tensorflow_is_not_required(workdir):
  code = f"""
import json, sys
sys.modules["tensorflow"] = None  # importing it fails
import numpy as np
from ctx_encoder.inpaint import Inpainter
image, mask = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), bool)
mask[5:9, 5:9] = True
completed = Inpainter.from_workdir({str(workdir)!r})(image, mask)
print(json.dumps(completed.shape))
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert json.loads(done.stdout) == [20, 30, 3]
