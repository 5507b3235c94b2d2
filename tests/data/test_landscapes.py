"""The embedded landscape photographs: files, manifest, notice, split."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from ctx_encoder.data import landscapes


def test_every_file_of_the_manifest_is_there_unchanged_and_no_other():
  rows = landscapes.manifest()
  assert len(rows) == 84
  files = {row["file"] for row in rows.values()}
  present = {file.name for file in landscapes.folder().iterdir()}
  assert present == files | {"manifest.json", "NOTICE"}
  for name, row in rows.items():
    assert hashlib.sha256(landscapes.encoded(name)).hexdigest() == row["sha256"], name


@pytest.fixture(scope="module")
def photographs():
  return {name: landscapes.read(name) for name in landscapes.names()}


def test_every_photograph_decodes_to_at_least_256_pixels_a_side(photographs):
  for name, image in photographs.items():
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert min(image.shape[:2]) >= 256
    assert image.std() > 10, f"{name} is nearly one colour"
  with Image.open(io.BytesIO(landscapes.encoded(name))) as image:
    np.testing.assert_array_equal(image, photographs[name])


def test_photographs_are_free_and_named_in_the_notice():
  notice = (landscapes.folder() / "NOTICE").read_text()
  by_file = {line.split("  ")[0].strip(): line for line in notice.splitlines()}
  for row in landscapes.manifest().values():
    assert row["licence"] in ("public-domain", "CC0-1.0")
    assert "morgue" not in row["source"]
    assert all(row[key] for key in ("author", "source", "original", "group"))
    line = by_file[row["file"]]
    assert all(row[key] in line for key in ("licence", "author", "source"))


def test_photographs_take_3_to_6_megabytes():
  size = sum(len(landscapes.encoded(name)) for name in landscapes.names())
  assert 3e6 < size < 6e6


def test_groups_hold_every_photograph_once():
  groups = landscapes.groups()
  members = [name for group in groups.values() for name in group]
  assert sorted(members) == list(landscapes.names())
  assert groups["new-york"] == ("city10", "city11")


def test_split_keeps_groups_together_and_about_a_fifth_for_validation():
  training, validation = landscapes.split()
  assert sorted(training + validation) == list(landscapes.names())
  assert 0.18 <= len(validation) / len(landscapes.names()) <= 0.24
  for group, members in landscapes.groups().items():
    assert set(members) <= set(training) or set(members) <= set(validation), group
  # A model card names what its model was validated on: the split must never move.
  digest = hashlib.sha256(" ".join(validation).encode()).hexdigest()
  assert digest[:16] == "e9fa4521d771cc5e"


def test_no_near_duplicates_on_both_sides_of_the_split(photographs):
  thumbnails = {}
  for name, image in photographs.items():
    small = Image.fromarray(image).resize((48, 24))
    pixels = np.asarray(small, np.float64)
    pixels = (pixels - pixels.mean((0, 1))).ravel()
    thumbnails[name] = pixels / np.linalg.norm(pixels)
  training, validation = landscapes.split()
  alike = np.array([thumbnails[name] for name in training]) @ np.transpose(
    [thumbnails[name] for name in validation]
  )
  assert alike.max() < 0.95


def test_unknown_names_are_refused():
  with pytest.raises(KeyError, match="astronaut"):
    landscapes.read("astronaut")
