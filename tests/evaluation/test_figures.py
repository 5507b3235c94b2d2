"""Figures: pixels kept, labels in their place, files replaced in one move."""

import matplotlib
import numpy as np
import pytest
from PIL import Image

from ctx_encoder.evaluation import figures


def read(path):
  with Image.open(path) as image:
    return np.asarray(image)


def tiles(rows, columns, height=40, width=56):
  """Returns uint8 images of strong colours, none of them grey."""
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (rows, columns, height, width, 3), np.uint8)
  images[..., 0] |= 128
  images[..., 1] &= 127
  return images


def find(canvas, tile):
  """Returns (top, left) of the one place where the tile lies in the canvas."""
  windows = np.lib.stride_tricks.sliding_window_view(canvas, tile.shape)[:, :, 0]
  matches = np.argwhere((windows == tile).all((2, 3, 4)))
  assert len(matches) == 1
  return matches[0]


def ink(canvas):
  """Returns where something grey and darker than the background is drawn."""
  gray = np.ptp(canvas.astype(int), axis=-1) == 0
  return gray & (canvas[..., 0] < 128)


def test_without_labels_it_is_images_and_padding():
  images = tiles(2, 3)
  canvas = figures.grid(images, pad=4)
  assert canvas.dtype == np.uint8
  assert canvas.shape == (4 + 2 * 44, 4 + 3 * 60, 3)
  for row in range(2):
    for column in range(3):
      place = find(canvas, images[row, column])
      assert tuple(place) == (4 + 44 * row, 4 + 60 * column)
  assert (canvas[:4] == 255).all()
  assert (canvas[-4:] == 255).all()
  assert (canvas[:, -4:] == 255).all()


def test_scale_repeats_pixels():
  image = tiles(1, 1)[0, 0]
  canvas = figures.grid([[image]], scale=3, pad=0)
  np.testing.assert_array_equal(canvas, image.repeat(3, axis=0).repeat(3, axis=1))


def test_a_row_may_be_shorter():
  images = tiles(2, 3)
  canvas = figures.grid([images[0], images[1][:1]])
  for tile in (*images[0], images[1][0]):
    find(canvas, tile)
  assert (canvas[48:, 64:] == 255).all()


def test_labels_are_beside_their_images_and_not_cut_off():
  images = tiles(2, 3)
  canvas = figures.grid(
    images,
    column_labels=["original", "a label of several words", "extraordinarily"],
    row_labels=["center", "random_block"],
    captions=[["25.0%", "1", ""], ["2", "3", "100.0%"]],
  )
  places = np.array([[find(canvas, tile) for tile in row] for row in images])
  marks = ink(canvas)
  for border in (marks[0], marks[-1], marks[:, 0], marks[:, -1]):
    assert not border.any()
  for row in range(2):
    for column in range(3):
      top, left = places[row, column]
      below = marks[top + 40 : top + 40 + 14, left - 20 : left + 56 + 20]
      assert below.any() == ((row, column) != (0, 2))
  for column in range(3):
    left = places[0, column, 1]
    assert marks[: places[0, 0, 0], left : left + 56].any()
  for row in range(2):
    top = places[row, 0, 0]
    assert marks[top : top + 40, : places[0, 0, 1]].any()


def test_long_labels_widen_their_columns_and_do_not_touch():
  images = tiles(1, 2, 16, 16)
  words = ["extraordinarily", "incomprehensible"]
  canvas = figures.grid(images, column_labels=words)
  between = ink(canvas)[: find(canvas, images[0, 0])[0]].any(0)
  columns = np.flatnonzero(between)
  gaps = np.diff(columns)
  # The gap between the words is the widest; letters stand closer.
  assert gaps.max() >= 4
  middle = columns[gaps.argmax()] + gaps.max() / 2
  centers = [find(canvas, tile)[1] + 8 for tile in images[0]]
  assert centers[0] < middle < centers[1]


def test_bad_grids():
  for rows, arguments, message in [
    ([], {}, "one shape"),
    ([[]], {}, "one shape"),
    ([[np.zeros((4, 4, 3)), np.zeros((4, 5, 3))]], {}, "one shape"),
    ([[np.zeros((4, 4))]], {}, "one shape"),
    ([[np.zeros((4, 4, 1))]], {}, "one shape"),
    (tiles(1, 2), {"column_labels": ["a"]}, "2 column_labels or none, not 1"),
    (tiles(1, 2), {"row_labels": ["a", "b"]}, "1 row_labels or none, not 2"),
    (tiles(1, 2), {"captions": [["a"]] * 2}, "1 captions or none, not 2"),
  ]:
    with pytest.raises(ValueError, match=message):
      figures.grid(rows, **arguments)


def test_save_png_makes_folders_and_replaces(tmp_path):
  path = tmp_path / "deep" / "er" / "grid.png"
  first, second = tiles(1, 2)[0]
  figures.save_png(path, first)
  figures.save_png(str(path), second)
  np.testing.assert_array_equal(read(path), second)
  assert [file.name for file in path.parent.iterdir()] == ["grid.png"]


def test_save_png_leaves_the_old_file_when_it_fails(tmp_path):
  path = tmp_path / "grid.png"
  image = tiles(1, 1)[0, 0]
  figures.save_png(path, image)
  with pytest.raises((TypeError, ValueError)):
    figures.save_png(path, np.zeros((2, 3, 4, 5), np.uint8))
  np.testing.assert_array_equal(read(path), image)
  assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]


def history(epochs=6):
  lines = []
  for step in range(4 * epochs):
    epoch = (step + 1) / 4
    lines.append(
      {
        "step": step + 1,
        "epoch": epoch,
        "loss/reconstruction": 0.02 + 0.3 * np.exp(-epoch),
        "loss/adversarial": 0.7 + 0.1 * np.sin(step),
        "loss/discriminator": 1.2,
        "psnr_hole": 10 + epoch,
      }
    )
    if epoch == int(epoch):
      lines.append(
        {
          "step": step + 1,
          "epoch": epoch,
          "eval/loss/reconstruction": 0.05 + 0.3 * np.exp(-epoch),
          "eval/psnr_hole": 12 + epoch - 0.2 * epoch**2,
          "eval/l1_hole": 0.1,
        }
      )
  return lines


@pytest.fixture
def drawn(monkeypatch):
  """Collects the figures that are written."""
  seen = []
  figure_png = figures.figure_png

  def collect(figure):
    seen.append(figure)
    return figure_png(figure)

  monkeypatch.setattr(figures, "figure_png", collect)
  return seen


def lines_of(axes):
  return {line.get_label(): line.get_xydata() for line in axes.lines}


def test_curves_draw_what_was_logged(tmp_path, drawn):
  lines = history()
  references = {"mean colour": 13.3, "Telea": 15.9}
  figures.curves(tmp_path / "curves.png", lines, references=references, title="photos")
  assert read(tmp_path / "curves.png").shape[:2] == (500, 1500)
  losses, adversarial, psnr = (lines_of(axes) for axes in drawn[0].axes)

  def logged(name):
    return np.array([(line["epoch"], line[name]) for line in lines if name in line])

  assert set(losses) == {"training", "validation", "best epoch, 2"}
  assert (losses["best epoch, 2"][:, 0] == 2).all()
  np.testing.assert_allclose(losses["training"], logged("loss/reconstruction"))
  np.testing.assert_allclose(losses["validation"], logged("eval/loss/reconstruction"))
  np.testing.assert_allclose(adversarial["generator"], logged("loss/adversarial"))
  np.testing.assert_allclose(adversarial["discriminator"], logged("loss/discriminator"))
  np.testing.assert_allclose(psnr["training"], logged("psnr_hole"))
  np.testing.assert_allclose(psnr["validation"], logged("eval/psnr_hole"))
  # 12 + e - e^2 / 5 is 13.2 at both 2 and 3; the first counts.
  np.testing.assert_allclose(psnr["best: 13.20 dB, epoch 2"], [[2, 13.2]])
  assert (psnr["mean colour: 13.30 dB"][:, 1] == 13.3).all()
  assert (psnr["Telea: 15.90 dB"][:, 1] == 15.9).all()
  for axes in drawn[0].axes:
    assert axes.get_title()
    assert axes.get_xlabel() == "epoch"
    assert axes.get_ylabel()
    legend = {text.get_text() for text in axes.get_legend().get_texts()}
    assert legend == set(lines_of(axes))


def test_curves_keep_everything_inside_the_picture(tmp_path, drawn):
  path = tmp_path / "curves.png"
  figures.curves(path, history(), references={"Telea": 15.9}, title="photos")
  marks = (read(path)[..., :3].min(axis=-1) < 250).nonzero()
  assert min(axis.min() for axis in marks) >= 1
  assert marks[0].max() < 499
  assert marks[1].max() < 1499


def test_values_that_are_not_finite_leave_a_gap(tmp_path, drawn):
  lines = history()
  lines[3]["loss/adversarial"] = float("nan")
  lines[4] = {"step": 4, "epoch": 1.0, "eval/psnr_hole": float("inf")}
  figures.curves(tmp_path / "curves.png", lines)
  _, adversarial, psnr = (lines_of(axes) for axes in drawn[0].axes)
  assert np.isnan(adversarial["generator"]).sum() == 1
  assert "best: 13.20 dB, epoch 2" in psnr


def test_curves_of_almost_nothing(tmp_path, drawn):
  for lines in ([], [{"step": 1, "epoch": 0.5}], history()[:1]):
    figures.curves(tmp_path / "curves.png", lines)
    assert read(tmp_path / "curves.png").shape[:2] == (500, 1500)
  # One point has no line, only a marker.
  assert all(line.get_marker() == "o" for axes in drawn[2].axes for line in axes.lines)
  assert any(axes.lines for axes in drawn[2].axes)


def test_long_noisy_series_get_a_moving_average(tmp_path, drawn):
  lines = history(30)
  figures.curves(tmp_path / "curves.png", lines)
  losses, adversarial, _ = drawn[0].axes
  assert "training, moving average" in lines_of(losses)
  assert "validation, moving average" not in lines_of(losses)
  raw = np.array([line["loss/adversarial"] for line in lines if "psnr_hole" in line])
  width = len(raw) // 20
  expected = [raw[i : i + width].mean() for i in range(len(raw) - width + 1)]
  drawn_average = lines_of(adversarial)["generator, moving average"]
  np.testing.assert_allclose(drawn_average[:, 1], expected)
  assert any(len(line.get_ydata()) == len(raw) for line in adversarial.lines)


def test_curves_leave_matplotlibs_global_state_alone(tmp_path):
  backend = matplotlib.rcParams._get("backend")
  figures.curves(tmp_path / "curves.png", history())
  assert matplotlib.rcParams._get("backend") is backend
