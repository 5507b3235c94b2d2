"""The commands masks and augment, as they are called from the command line."""

import json

import numpy as np
import pytest
from command import call, refusal
from pictures import contents, load
from PIL import Image

from ctx_encoder import config
from ctx_encoder.data import split


def read(path):
  with Image.open(path) as image:
    return np.asarray(image)


class TestMasks:
  def test_a_row_for_each_kind(self, tmp_path, capsys):
    path = tmp_path / "new" / "masks.png"
    assert call("masks", "--output", path, "--size", 32, "--count", 3) == 0
    image = read(path)
    assert str(path) in capsys.readouterr().out
    hole = (image == [255, 0, 200]).all(-1)
    # The rows that holes are seen in: one band for each of the five kinds.
    bands = np.flatnonzero(np.diff(hole.any(1).astype(int)) == 1)
    assert len(bands) >= 5
    # A centre hole is 16x16 pixels, three in the first row.
    top = np.flatnonzero(hole.any(1))[0]
    assert hole[top].sum() == 3 * 16
    assert hole[top + 15].sum() == 3 * 16

  def test_masks_depend_on_the_seed(self, tmp_path):
    common = ("--size", 32, "--count", 2, "--kinds", "random_block")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
      path = tmp_path / f"{name}.png"
      assert call("masks", "--output", path, "--seed", seed, *common) == 0
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c

  def test_silhouettes(self, tmp_path):
    (tmp_path / "shapes").mkdir()
    Image.new("L", (20, 20), 255).save(tmp_path / "shapes" / "square.png")
    path = tmp_path / "shapes.png"
    arguments = ("--kinds", "shapes", "--size", 32, "--fill", "#010203")
    shapes = tmp_path / "shapes"
    assert call("masks", "--output", path, "--shapes", shapes, *arguments) == 0
    hole = (read(path) == [1, 2, 3]).all(-1)
    assert 0 < hole.sum() <= 8 * 256

  def test_errors_are_one_line(self, tmp_path, capsys):
    path = tmp_path / "masks.png"
    for arguments, message in (
      (("--size", 8), "--size must be within"),
      (("--count", 0), "--count must be within"),
      (("--kinds", "shapes"), "needs --shapes"),
      (("--shapes", "nowhere"), "no folder 'nowhere'"),
      (("--fill", "pink"), "#rrggbb"),
      (("--output", tmp_path / "masks.jpg"), "must name a .png file"),
      (("--output", tmp_path), "must name a .png file"),
    ):
      assert message in refusal(capsys, "masks", "--output", path, *arguments)
      assert not list(tmp_path.iterdir())


def paintings(folder, count=3, side=32, kind="png"):
  folder.mkdir()
  for number in range(count):
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"monet{number}.{kind}")
  return folder


@pytest.fixture
def originals(tmp_path):
  return paintings(tmp_path / "originals")


def augment(originals, output, *arguments):
  folders = ["--input", originals, "--output", output]
  return ["augment", *folders, "--size", 32, *arguments]


def run_augment(*arguments):
  return call(*augment(*arguments))


class TestAugment:
  def test_writes_originals_and_copies(self, originals, tmp_path, capsys):
    output = tmp_path / "out"
    assert run_augment(originals, output, "--copies", 2) == 0
    assert "9 images written" in capsys.readouterr().out
    expected = {
      f"monet{number}{suffix}.jpg"
      for number in range(3)
      for suffix in ("", "_aug01", "_aug02")
    }
    assert set(contents(output)) == expected | {"augment.json"}
    pictures = {name: read(output / name).astype(int) for name in expected}
    assert all(picture.shape == (32, 32, 3) for picture in pictures.values())
    for number in range(3):
      original = read(originals / f"monet{number}.png").astype(int)
      written = pictures[f"monet{number}.jpg"]
      assert np.abs(written - original).mean() < 6  # JPEG of noise
      copies = [pictures[f"monet{number}_aug0{copy}.jpg"] for copy in (1, 2)]
      assert np.abs(copies[0] - original).mean() > 20
      assert np.abs(copies[0] - copies[1]).mean() > 20
    note = json.loads((output / "augment.json").read_text())
    assert note["rotation"] == 10
    assert note["hue"] == 0

  def test_the_folder_can_be_loaded(self, originals, tmp_path):
    output = tmp_path / "out"
    assert run_augment(originals, output, "--copies", 4) == 0
    # Copies go where their original goes, so three paintings make no split to rely on.
    loaded = load(output, image_size=32, loader="pillow", validation_fraction=0.0)
    assert loaded.summary.found == 15
    assert not loaded.summary.skipped

  def test_total_is_met(self, originals, tmp_path):
    output = tmp_path / "out"
    assert run_augment(originals, output, "--total", 11) == 0
    assert len(list(output.glob("*.jpg"))) == 11
    assert len(list(output.glob("monet0*.jpg"))) == 4

  def test_jpegs_of_the_size_are_copied_as_they_are(self, tmp_path):
    originals = paintings(tmp_path / "jpegs", 1, 32, "jpg")
    assert run_augment(originals, tmp_path / "out", "--copies", 1) == 0
    copied = (tmp_path / "out" / "monet0.jpg").read_bytes()
    assert copied == (originals / "monet0.jpg").read_bytes()

  def test_strength_zero_makes_equal_copies(self, originals, tmp_path):
    off = [f"--{name.replace('_', '-')}=0" for name in config.PAINTINGS]
    assert run_augment(originals, tmp_path / "out", "--copies", 1, *off) == 0
    files = contents(tmp_path / "out")
    assert files["monet0.jpg"] == files["monet0_aug01.jpg"]

  def test_an_interrupted_call_is_finished_by_the_next(
    self, originals, tmp_path, capsys
  ):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert run_augment(originals, whole, "--copies", 3) == 0
    assert run_augment(originals, resumed, "--copies", 2) == 0
    (resumed / "monet1_aug02.jpg").unlink()
    (resumed / ".new.monet1_aug02.jpg").write_bytes(b"half")
    kept = (resumed / "monet1.jpg").stat().st_mtime_ns
    capsys.readouterr()
    assert run_augment(originals, resumed, "--copies", 3) == 0
    assert "4 images written, 8 existed" in capsys.readouterr().out
    assert contents(resumed) == contents(whole)
    assert (resumed / "monet1.jpg").stat().st_mtime_ns == kept

  def test_copies_depend_only_on_seed_and_name(self, originals, tmp_path):
    assert run_augment(originals, tmp_path / "all", "--copies", 1) == 0
    (originals / "monet0.png").unlink()
    assert run_augment(originals, tmp_path / "less", "--copies", 1) == 0
    assert run_augment(originals, tmp_path / "seed", "--copies", 1, "--seed", 1) == 0
    everything, less = contents(tmp_path / "all"), contents(tmp_path / "less")
    assert less.items() <= everything.items()
    name = "monet1_aug01.jpg"
    assert contents(tmp_path / "seed")[name] != everything[name]

  def test_names_of_copies_contain_the_originals(self, originals, tmp_path):
    assert run_augment(originals, tmp_path / "out", "--copies", 2) == 0
    for name in contents(tmp_path / "out"):
      assert name == "augment.json" or split.COPY.sub("", name) in {
        "monet0.jpg",
        "monet1.jpg",
        "monet2.jpg",
      }

  def test_folders_and_extensions_are_kept_apart(self, tmp_path):
    originals = paintings(tmp_path / "originals", 1)
    paintings(originals / "more", 1)
    Image.new("RGB", (32, 32), "red").save(originals / "monet0.bmp")
    assert run_augment(originals, tmp_path / "out", "--copies", 1) == 0
    assert set(contents(tmp_path / "out")) == {
      "augment.json",
      "monet0.bmp.jpg",
      "monet0.bmp_aug01.jpg",
      "monet0.png.jpg",
      "monet0.png_aug01.jpg",
      "more/monet0.jpg",
      "more/monet0_aug01.jpg",
    }

  def test_other_files_and_settings_are_refused(self, originals, tmp_path, capsys):
    output = tmp_path / "out"
    assert run_augment(originals, output, "--copies", 2) == 0
    before = contents(output)
    again = augment(originals, output, "--copies", 2)
    assert "not made with these settings" in refusal(capsys, *again, "--seed", 1)
    (output / "notes.txt").write_text("mine")
    assert "such as notes.txt: name an empty" in refusal(capsys, *again)
    assert contents(output) == before | {"notes.txt": b"mine"}

  def test_force_leaves_no_copy_of_other_settings(self, originals, tmp_path):
    output, fresh = tmp_path / "out", tmp_path / "fresh"
    assert run_augment(originals, output, "--copies", 3) == 0
    (output / "notes.txt").write_text("mine")
    assert run_augment(originals, output, "--copies", 1, "--seed", 1, "--force") == 0
    assert run_augment(originals, fresh, "--copies", 1, "--seed", 1) == 0
    assert contents(output) == contents(fresh) | {"notes.txt": b"mine"}

  def test_broken_files_are_named_and_left_out(self, originals, tmp_path, capsys):
    for name in ("broken.png", "clears\x1b[2J.png"):
      (originals / name).write_bytes(b"not a picture")
    assert run_augment(originals, tmp_path / "out", "--copies", 1) == 0
    streams = capsys.readouterr()
    assert "broken.png" in streams.err
    assert r"clears\x1b[2J.png" in streams.err
    assert "6 images written, 0 existed, 2 originals skipped" in streams.out
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 6

  def test_bad_arguments(self, originals, tmp_path, capsys):
    for arguments, message in (
      (("--copies", 0), "leaves no copy to make of 3 images"),
      (("--total", 3), "--total 3 leaves no copy"),
      (("--size", 4), "--size must be within"),
      (("--quality", 0), "--quality must be within"),
      (("--seed", -1), "--seed must be within"),
      (("--rotation", 200), "--rotation must be within"),
      (("--flip-vertical", 1.5), "--flip-vertical must be within"),
    ):
      call = augment(originals, tmp_path / "out", *arguments)
      assert message in refusal(capsys, *call)
      assert not (tmp_path / "out").exists()

  def test_bad_folders(self, originals, tmp_path, capsys):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    assert run_augment(originals, tmp_path / "copies", "--copies", 1) == 0
    capsys.readouterr()
    for folders, message in (
      ((tmp_path / "missing", out), "no such folder"),
      ((originals, originals), "or a folder inside it"),
      ((originals, originals / "new"), "or a folder inside it"),
      ((empty, out), "No images"),
      ((tmp_path / "copies", out), "name the folder of originals"),
    ):
      assert message in refusal(capsys, *augment(*folders))

  def test_nothing_usable(self, tmp_path, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    assert run_augment(tmp_path / "bad", tmp_path / "out") == 1
    assert "None of the 1 images" in capsys.readouterr().err
