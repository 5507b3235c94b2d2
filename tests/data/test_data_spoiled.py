"""Images that vanish or are damaged during a run."""

import contextlib
import itertools
import json
import os
import shutil

import numpy as np
import pytest
import tiny
from pictures import encode, fill_folder, load, noise

from ctx_encoder.data import (
  TooManyBadImages,
  batch_indices,
  train_batches,
  validation_batches,
)
from ctx_encoder.evaluation import figures
from ctx_encoder.training import feed, trainer
from ctx_encoder.training.checkpoint import Checkpoints

LOADERS = ("tf", "pillow")
COUNT, SIZE = 40, 8  # images in all, and in a batch
AHEAD = 12  # at least the number of batches that a loader makes ahead of time


def vanish(path):
  path.unlink()


def become_garbage(path):
  path.write_bytes(np.random.default_rng(0).bytes(500))


def become_empty(path):
  path.write_bytes(b"")


def become_a_folder(path):
  path.unlink()
  path.mkdir()


def lose_the_end(path):
  path.write_bytes(path.read_bytes()[:-100])


def turn_into_a_bomb(path):
  path.write_bytes(encode(np.zeros((200, 200), np.uint8)))


def become_a_pipe(path):
  path.unlink()
  os.mkfifo(path)  # reading it would wait for ever


def become_a_link_to_a_device(path):
  path.unlink()
  path.symlink_to("/dev/zero")


FATES = {  # and the reason reported
  vanish: "cannot be read: No such file or directory",
  become_garbage: "not a picture",
  become_empty: "empty file",
  become_a_folder: "cannot be read: Is a directory",
  lose_the_end: "truncated",
  turn_into_a_bomb: "200x200 pixels, above max_pixels=10000",
  become_a_pipe: "cannot be read: not a regular file, but a pipe, socket or device",
  become_a_link_to_a_device: "cannot be read: not a regular file",
}


VICTIMS = [3, 4, 10, 20, 38, 39, 15, 30]  # one for each fate


def open_folder(path, loader, **options):
  if loader == "tf":
    pytest.importorskip("tensorflow")
  options = {"validation_fraction": 0.0, "max_pixels": 10_000} | options
  return load(path, loader=loader, cache="none", image_size=16, **options)


def spoil(folder, names):
  """Applies each fate to one of the names; returns these names in order."""
  victims = [names[i] for i in VICTIMS]
  for victim, fate in zip(victims, FATES, strict=True):
    fate(folder / victim)
  return victims


@pytest.mark.parametrize("loader", LOADERS)
def test_batches_stay_full_and_other_images_in_place(loader, tmp_path):
  names = fill_folder(tmp_path, COUNT)
  data = open_folder(tmp_path, loader)
  with contextlib.closing(train_batches(data.train, batch_size=SIZE, seed=3)) as steps:
    before = list(itertools.islice(steps, 2))
    victims = spoil(tmp_path, names)
    after = list(itertools.islice(steps, 2 * AHEAD))
  # The next good name, and after the last the first: 3, 4 -> 5, 38, 39 -> 0.
  good = np.arange(COUNT)
  good[VICTIMS] = [5, 5, 11, 21, 0, 0, 16, 31]
  for step, batch in enumerate(before + after):
    wanted = batch_indices(COUNT, SIZE, 3, step)
    if step >= 2 + AHEAD:
      wanted = good[wanted]
    elif step >= 2:
      continue
    np.testing.assert_array_equal(batch["index"], data.train.ids[wanted])
    for picture, position in zip(batch["image"], wanted, strict=True):
      np.testing.assert_array_equal(picture, noise(16, 16, seed=position))
  assert data.summary.skipped.keys() == set(victims)
  for victim, reason in zip(victims, FATES.values(), strict=True):
    assert reason in data.summary.skipped[victim]


@pytest.mark.parametrize("loader", LOADERS)
def test_validation_does_not_count_bad_images(loader, tmp_path):
  fill_folder(tmp_path, COUNT)
  data = open_folder(tmp_path, loader, validation_fraction=0.4)
  whole = list(validation_batches(data.validation, batch_size=SIZE))
  vanish(tmp_path / data.validation.names[2])
  batches = list(validation_batches(data.validation, batch_size=SIZE))
  assert sum(b["weight"].sum() for b in whole) == len(data.validation)
  assert sum(b["weight"].sum() for b in batches) == len(data.validation) - 1
  assert batches[0]["weight"][2] == 0


@pytest.mark.parametrize("loader", LOADERS)
def test_iteration_ends_above_max_bad_share(loader, tmp_path):
  names = fill_folder(tmp_path, COUNT)
  data = open_folder(tmp_path, loader, max_bad_share=0.1)
  with contextlib.closing(train_batches(data.train, batch_size=SIZE, seed=3)) as steps:
    next(steps)
    for name in names[:4]:
      vanish(tmp_path / name)
    full = list(itertools.islice(steps, 2 * AHEAD))
    assert {len(batch["image"]) for batch in full} == {SIZE}
    assert len(data.summary.skipped) == 4
    become_garbage(tmp_path / names[30])
    with pytest.raises(
      TooManyBadImages,
      match=r"5 of 40 images .* data\.max_bad_share=0\.1 allows: .* is"
      r" picture030\.png: not a picture\.",
    ):
      list(itertools.islice(steps, 2 * AHEAD))


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_max_bad_share_includes_images_bad_from_the_start(cache, tmp_path):
  names = fill_folder(tmp_path, COUNT)
  for name in names[:5]:
    become_garbage(tmp_path / name)
  options = {"path": str(tmp_path), "image_size": 16, "loader": "pillow"}
  options |= {"validation_fraction": 0.0, "cache": cache}

  def read(share):
    data = load(max_bad_share=share, **options)
    steps = train_batches(data.train, batch_size=SIZE, seed=0)
    return list(itertools.islice(steps, AHEAD))

  with pytest.raises(TooManyBadImages, match="5 of 40"):
    read(0.1)
  assert len(read(0.125)) == AHEAD


@pytest.fixture
def records(tmp_path):
  """Four TFRecord files of ten pictures each."""
  tf = pytest.importorskip("tensorflow")

  def feature(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

  for file in range(4):
    with tf.io.TFRecordWriter(str(tmp_path / f"part{file}.tfrec")) as writer:
      for number in range(10 * file, 10 * file + 10):
        picture = encode(noise(16, 16, seed=number))
        features = {"image": feature(picture), "image_name": feature(b"%03d" % number)}
        example = tf.train.Example(features=tf.train.Features(feature=features))
        writer.write(example.SerializeToString())
  return tmp_path


@pytest.mark.parametrize("loader", LOADERS)
def test_bad_records_are_replaced(loader, records):
  data = open_folder(records, loader)
  assert len(data.train) == COUNT
  size = (records / "part2.tfrec").stat().st_size
  (records / "part0.tfrec").unlink()
  (records / "part1.tfrec").write_bytes(np.random.default_rng(0).bytes(size))
  (records / "part2.tfrec").write_bytes(b"")
  with contextlib.closing(train_batches(data.train, batch_size=SIZE, seed=3)) as steps:
    batches = list(itertools.islice(steps, 5))
  for batch in batches:
    assert len(batch["image"]) == SIZE
    assert set(batch["index"]) <= set(data.train.ids[30:])
  assert data.summary.skipped.keys() == {f"{number:03d}" for number in range(30)}


# Complete runs


@pytest.fixture
def run(photographs, tmp_path, monkeypatch):
  """Returns a function that trains while two images vanish, and reports."""
  tiny.use_mosaics(monkeypatch)
  monkeypatch.setattr(figures, "curves", lambda *args, **kwargs: None)
  folder = tmp_path / "pictures"
  shutil.copytree(photographs, folder)
  dispatches = feed.dispatches

  def spoiled(*args, **kwargs):
    with contextlib.closing(dispatches(*args, **kwargs)) as steps:
      for end, dispatch in steps:
        if end == 6:  # after the first validation
          for name in sorted(folder.iterdir())[4:6]:
            name.unlink()
        yield end, dispatch

  monkeypatch.setattr(feed, "dispatches", spoiled)
  said = []

  def train(**changes):
    options = {
      "data__path": str(folder),
      "data__cache": "none",
      "data__placement": "host",
      "num_steps": 24,
      "log__every_steps": 1,
      "eval__every_epochs": 1,
    }
    config = tiny.config(**options, **changes)
    return trainer.train(config, tmp_path / "run", say=said.append), "\n".join(said)

  return train


@pytest.mark.slow
def test_a_run_continues_and_reports_skipped_images(run, tmp_path):
  outcome, said = run()
  assert outcome.reason == "finished"
  assert "Skipped 2: picture00" in said
  assert said.count("No such file or directory") == 2
  lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  counts = [
    line.get("skipped_images")
    for line in map(json.loads, lines)
    if "eval/l1_hole" in line
  ]
  assert counts[0] is None
  assert counts[-1] == 2


def test_a_run_ends_above_max_bad_share(run, tmp_path):
  with pytest.raises(TooManyBadImages, match=r"2 of 20 images .*max_bad_share=0.05"):
    run(data__max_bad_share=0.05)
  assert Checkpoints(tmp_path / "run" / "checkpoints").latest() is not None
