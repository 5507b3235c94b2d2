"""Atomic writes, and mask images read as silhouettes."""

import pathlib
import types

import numpy as np
import pytest
from PIL import Image

from ctx_encoder.data import files
from ctx_encoder.data.silhouettes import (
  load_masks,
  load_silhouettes,
  region_silhouettes,
)


def test_write_takes_bytes_text_and_functions(tmp_path):
  path = tmp_path / "new" / "deep" / "a.npz"
  files.write(path, b"\xff\x00")
  assert path.read_bytes() == b"\xff\x00"
  files.write(str(path), "café\n")
  assert path.read_bytes() == b"caf\xc3\xa9\n"
  files.write(path, lambda new: np.savez(new, a=np.arange(3)))
  np.testing.assert_array_equal(np.load(path)["a"], np.arange(3))
  assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
  path = tmp_path / "a.txt"
  files.write(path, "old")

  def fail(new):
    new.write_text("half")
    raise OSError("disk full")

  with pytest.raises(OSError, match="disk full"):
    files.write(path, fail)
  assert path.read_text() == "old"
  assert list(tmp_path.iterdir()) == [path]


def note_flushes(monkeypatch, path):
  """Returns a list that gets (name, whether `path` exists) of each fsync."""
  flushed = []

  def fsync(descriptor):
    name = files.os.readlink(f"/proc/self/fd/{descriptor}")
    flushed.append((name, path.exists()))

  monkeypatch.setattr(files.os, "fsync", fsync)
  return flushed


def test_content_is_flushed_before_the_file_is_renamed(tmp_path, monkeypatch):
  path = tmp_path / "a.txt"
  flushed = note_flushes(monkeypatch, path)
  files.write(path, "new")
  assert flushed == [(str(tmp_path / ".new.a.txt"), False), (str(tmp_path), True)]
  flushed.clear()
  files.write(tmp_path / "b/c/d.txt", "new")  # the entries of new folders too
  names = ["", "b", "b/c/.new.d.txt", "b/c"]
  assert [name for name, _ in flushed] == [str(tmp_path / name) for name in names]
  flushed.clear()
  files.sync(tmp_path)
  assert {name for name, _ in flushed} == {
    str(tmp_path),
    *map(str, tmp_path.rglob("*")),
  }


def test_a_folder_is_flushed_before_it_gets_its_name(tmp_path, monkeypatch):
  folder = tmp_path / "model"
  flushed = note_flushes(monkeypatch, folder)

  def make(new):
    (new / "deep").mkdir(parents=True)
    (new / "deep/a").write_text("new")

  files.write_folder(folder, make)
  before = {pathlib.Path(name).name for name, named in flushed if not named}
  assert before == {"new", "deep", "a"}
  assert flushed[-1] == (str(tmp_path), True)
  (folder / "old").write_text("")
  files.write_folder(folder, make)
  assert sorted(path.name for path in folder.iterdir()) == ["deep"]

  def fail(new):
    make(new)
    raise OSError("disk full")

  with pytest.raises(OSError, match="disk full"):
    files.write_folder(folder, fail)
  assert (folder / "deep/a").read_text() == "new"
  assert list(tmp_path.iterdir()) == [folder]


def label_map(folder, labels, palette):
  image = Image.fromarray(labels)
  image.putpalette(palette)
  image.save(folder / "labels.png")


@pytest.mark.parametrize("objects", [1, 8, 255])
def test_two_labels_decide_and_not_their_colours(tmp_path, objects):
  labels = np.zeros((16, 16), np.uint8)
  labels[4:8, 4:12] = objects
  dark, inverse = [0] * 768, [255] * 3 + [0] * 765
  for palette in (dark, inverse):
    label_map(tmp_path, labels, palette)
    (mask,) = load_masks(str(tmp_path), 16)
    np.testing.assert_array_equal(mask[..., 0], labels != 0)
    (mask,) = load_masks(str(tmp_path), 16, inverted=True)
    np.testing.assert_array_equal(mask[..., 0], labels == 0)


def test_void_is_no_hole_beside_other_labels(tmp_path):
  labels = np.full((16, 16), 255, np.uint8)
  labels[2:6, 2:6] = 3
  label_map(tmp_path, labels, [255] * 768)
  (mask,) = load_masks(str(tmp_path), 16)
  np.testing.assert_array_equal(mask[..., 0], labels == 3)


def test_silhouettes_are_loaded_if_the_section_uses_them(tmp_path):
  Image.new("L", (20, 20), 255).save(tmp_path / "a.png")
  masks = types.SimpleNamespace(region="noise", path=str(tmp_path), inverted=False)
  assert region_silhouettes(masks, 16) is None
  masks.region = "shapes"
  found = region_silhouettes(masks, 16)
  np.testing.assert_array_equal(found, load_silhouettes(str(tmp_path), 16))
  masks.path = ""
  assert region_silhouettes(masks, 16) is None
