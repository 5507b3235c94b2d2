"""Loading and batches are the same for both loaders and both caches."""

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from itertools import islice

import numpy as np
import pictures
import pytest
from pictures import encode, fill_folder, load, noise

from ctx_encoder.data import (
  Processes,
  batch_indices,
  decode,
  decode_all,
  landscapes,
  streams,
  train_batches,
  validation_batches,
)

loading = importlib.import_module("ctx_encoder.data.load")
LOADERS = ("tf", "pillow")
CACHES = ("memory", "none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder of 40 pictures of 16x16."""
  path = tmp_path_factory.mktemp("pictures")
  fill_folder(path, 40)
  return path


def open_folder(path, loader="pillow", cache="memory", **options):
  if loader == "tf":
    pytest.importorskip("tensorflow")
  return load(path, loader=loader, cache=cache, **{"image_size": 16} | options)


def assert_batches_equal(actual, expected):
  assert len(actual) == len(expected)
  for one, other in zip(actual, expected, strict=True):
    assert one.keys() == other.keys()
    for name in one:
      assert one[name].dtype == other[name].dtype
      np.testing.assert_array_equal(one[name], other[name])


# Loading


@pytest.mark.parametrize("loader", LOADERS)
def test_load(folder, loader):
  data = open_folder(folder, loader)
  names = [*data.train.names, *data.validation.names]
  assert sorted(names) == [f"picture{number:03d}.png" for number in range(40)]
  assert list(data.train.names) == sorted(data.train.names)
  for examples in (data.train, data.validation):
    assert examples.images.shape == (len(examples), 16, 16, 3)
    assert examples.images.dtype == np.uint8
    assert examples.nbytes == examples.images.nbytes
    for index, name in enumerate(examples.names):
      assert examples.ids[index] == zlib.crc32(name.encode()) % 2**31
      expected = noise(16, 16, seed=int(name[7:10]))
      np.testing.assert_array_equal(examples.images[index], expected)
      np.testing.assert_array_equal(examples.gather([index])[0], expected)
  assert data.summary.source == "folder"
  assert data.summary.found == data.summary.used == 40
  assert data.summary.skipped_line() == data.summary.notice == ""


def test_without_a_cache_nothing_is_kept(folder):
  kept, read = open_folder(folder).train, open_folder(folder, cache="none").train
  assert (kept.how, read.how) == ("", ", decoded every epoch by threads with Pillow")
  assert read.images is None
  assert read.nbytes == kept.nbytes
  np.testing.assert_array_equal(read.gather([3, 0, 3]), kept.gather([3, 0, 3]))


def test_auto_caches_in_less_than_a_quarter_of_the_free_memory(folder, monkeypatch):
  assert 2**24 < loading._free_memory() < 2**50
  for free, kept in ((10**9, True), (4 * 40 * 768, False)):
    monkeypatch.setattr(loading, "_free_memory", lambda free=free: free)
    assert (open_folder(folder, cache="auto").train.images is not None) == kept


def test_max_images(folder):
  data = open_folder(folder, max_images=25)
  assert len(data.train) + len(data.validation) == data.summary.used == 25
  assert data.summary.found == 40


def test_training_only(folder):
  data = open_folder(folder, validation_fraction=0.0)
  assert len(data.train) == 40
  assert len(data.validation) == 0
  assert data.validation.images.shape == (0, 16, 16, 3)
  assert list(validation_batches(data.validation, batch_size=4)) == []


def test_embedded_validation_crops_are_left_out_or_included():
  split, training_only, everything = (
    load(image_size=8, loader="pillow", cache="none", **options)
    for options in ({}, {"validation_fraction": 0.0}, {"everything": True})
  )
  assert len(training_only.validation) == len(everything.validation) == 0
  assert training_only.train.names == split.train.names
  assert {name.split("/")[0] for name in split.train.names} == set(
    landscapes.split()[0]
  )
  assert everything.train.names == tuple(
    sorted(split.train.names + split.validation.names)
  )


def test_everything_includes_the_validation_images(folder):
  data = open_folder(folder, validation_fraction=0.5, everything=True)
  assert len(data.train) == 40
  assert len(data.validation) == 0


def test_load_size_decides_on_the_side(folder):
  assert open_folder(folder, load_size=24).train.images.shape[1:] == (24, 24, 3)


def test_splits_that_come_out_empty(tmp_path):
  (tmp_path / "000.jpg").write_bytes(encode(noise(16, 16)))  # a training name
  with pytest.raises(ValueError, match=r"none is left to validate on.*set it to 0"):
    open_folder(tmp_path)
  (tmp_path / "000.jpg").rename(tmp_path / "001.jpg")  # a validation name
  with pytest.raises(
    ValueError, match=r"none is left to train on.*validation_fraction"
  ):
    open_folder(tmp_path)


def test_wrong_settings(folder):
  for name, value, message in (
    ("cache", "disk", "be auto, memory or none"),
    ("loader", "torch", "be auto, tf or pillow"),
    ("image_size", 0, "be at least 1"),
    ("validation_fraction", 1.0, r"be in \[0, 1\)"),
    ("validation_fraction", -0.1, r"be in \[0, 1\)"),
  ):
    with pytest.raises(ValueError, match=rf"data\.{name} must {message}"):
      open_folder(folder, **{name: value})


# Bad pictures


@pytest.fixture
def spoiled(folder, tmp_path):
  """The folder with 3 of its validation pictures spoiled, the last one among them."""
  for file in folder.iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  names = open_folder(folder).validation.names
  victims = [names[1], names[2], names[-1]]
  assert len(names) >= 6
  (tmp_path / victims[0]).write_bytes(b"no picture")
  (tmp_path / victims[1]).write_bytes(encode(noise(16, 16))[:300])
  (tmp_path / victims[2]).write_bytes(encode(noise(1, 1)))
  return tmp_path, victims


def together(count, function):
  """Returns what a function of `Processes` returns in each of several at a time."""
  barrier, given, results = threading.Barrier(count, timeout=30), {}, {}

  def work(index):
    def gather(x):
      given[index] = x
      barrier.wait()
      everyone = np.stack([given[i] for i in range(count)])
      barrier.wait()  # all have read it
      return everyone

    results[index] = function(Processes(index, count, gather))

  threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return [results[index] for index in range(count)]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("loader", LOADERS)
def test_processes_share_the_decoding(spoiled, monkeypatch, loader, count):
  path, victims = spoiled
  alone, read = open_folder(path, loader), []

  def counted(content, *args):
    read.append(content)
    return decode.decode(content, *args)

  monkeypatch.setattr("ctx_encoder.data.examples.decode", counted)
  for data in together(count, lambda p: open_folder(path, loader, processes=p)):
    for part in ("train", "validation"):
      one, other = getattr(data, part), getattr(alone, part)
      assert one.names == other.names
      np.testing.assert_array_equal(one.ids, other.ids)
      np.testing.assert_array_equal(one.images, other.images)
    assert data.summary.skipped.keys() == set(victims)
    assert "cannot be used, as another process found" in data.summary.skipped.values()
  assert len(read) == 40  # each picture once, by one of them


def test_processes_agree_on_what_to_keep(folder, monkeypatch):
  """One that has less free memory than the others decides for all."""
  free = iter([2**40, 0, 2**40])
  monkeypatch.setattr(loading, "_free_memory", lambda: next(free))
  loaded = together(3, lambda p: open_folder(folder, cache="auto", processes=p))
  assert all(data.train.images is None for data in loaded)


def test_processes_without_validation(folder):
  for data in together(
    2, lambda p: open_folder(folder, validation_fraction=0, processes=p)
  ):
    assert (len(data.train.images), len(data.validation)) == (40, 0)


@pytest.mark.parametrize("loader", LOADERS)
def test_bad_pictures_are_left_out_and_named(spoiled, folder, loader):
  path, victims = spoiled
  data = open_folder(path, loader)
  everyone = open_folder(folder).validation.names
  assert list(data.validation.names) == [n for n in everyone if n not in victims]
  assert len(data.validation.images) == len(data.validation) == len(everyone) - 3
  for index, name in enumerate(data.validation.names):
    expected = noise(16, 16, seed=int(name[7:10]))
    np.testing.assert_array_equal(data.validation.images[index], expected)
    np.testing.assert_array_equal(data.validation.dimensions(index), (16, 16))
  assert data.summary.skipped.keys() == set(victims)
  assert data.summary.skipped[victims[0]] == "not a picture"
  assert "truncated" in data.summary.skipped[victims[1]]
  assert data.summary.skipped[victims[2]] == "1x1 pixels, a side below 8"
  assert (data.summary.found, data.summary.used) == (40, 37)


def test_skipped_line_names_the_first_few(spoiled):
  path, _ = spoiled
  summary = open_folder(path).summary
  line = summary.skipped_line(show=1)
  first, reason = next(iter(summary.skipped.items()))
  summary.skipped["a\x1b[2J\n"] = "bad"
  assert r"a\x1b[2J\n (bad)." in summary.skipped_line(show=9)
  del summary.skipped["a\x1b[2J\n"]
  assert line == f"Skipped 3: {first} ({reason}) and 2 more."
  assert "more" not in summary.skipped_line()


@pytest.mark.parametrize("loader", LOADERS)
def test_without_a_cache_bad_pictures_are_replaced_by_the_next(spoiled, loader):
  path, victims = spoiled
  data = open_folder(path, loader, cache="none", validation_fraction=0.2)
  names = data.validation.names
  assert data.summary.skipped == {}
  batches = list(validation_batches(data.validation, batch_size=4))
  ids = np.concatenate([batch["index"] for batch in batches])[: len(names)]
  weights = np.concatenate([batch["weight"] for batch in batches])
  expected_ids = data.validation.ids.copy()
  expected_ids[[1, 2, -1]] = expected_ids[[3, 3, 0]]
  np.testing.assert_array_equal(ids, expected_ids)
  expected_weights = [float(name not in victims) for name in names]
  np.testing.assert_array_equal(weights[: len(names)], expected_weights)
  assert not weights[len(names) :].any()
  assert data.summary.skipped.keys() == set(victims)


@pytest.mark.parametrize("loader", LOADERS)
def test_nothing_can_be_decoded(tmp_path, loader):
  for number in range(20):
    (tmp_path / f"{number:03d}.jpg").write_bytes(b"no picture")
  with pytest.raises(ValueError, match=r"No image can be used, 20 were skipped\. 0"):
    open_folder(tmp_path, loader)
  data = open_folder(tmp_path, loader, cache="none")
  with pytest.raises(ValueError, match=r"None of the \d+ images of this"):
    next(train_batches(data.train, batch_size=2, seed=0))


def test_decode_all_of_what_is_in_memory(folder):
  examples = open_folder(folder).train
  ((images, positions),) = decode_all(examples)
  np.testing.assert_array_equal(images, examples.images)
  np.testing.assert_array_equal(positions, np.arange(len(examples)))


@pytest.mark.parametrize("loader", LOADERS)
def test_files_that_vanish_are_skipped(tmp_path, loader):
  names = fill_folder(tmp_path, 40)
  data = open_folder(tmp_path, loader, cache="none", validation_fraction=0.0)
  (tmp_path / names[5]).unlink()
  positions = np.concatenate([where for _, where in decode_all(data.train)])
  np.testing.assert_array_equal(positions, np.delete(np.arange(40), 5))
  assert data.summary.skipped == {names[5]: "cannot be read: No such file or directory"}


# Training batches


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("cache", CACHES)
def test_train_batches_follow_batch_indices(folder, loader, cache):
  reference = open_folder(folder).train
  batch_size = len(reference) // 3  # with a remainder or not, 8 steps cross two epochs
  examples = open_folder(folder, loader, cache).train
  batches = train_batches(examples, batch_size=batch_size, seed=5)
  expected = [
    {"image": reference.images[indices], "index": reference.ids[indices]}
    for indices in (batch_indices(len(reference), batch_size, 5, s) for s in range(8))
  ]
  assert_batches_equal(list(islice(batches, 8)), expected)
  batches.close()


@pytest.mark.parametrize("loader", LOADERS)
def test_resuming_gives_the_batches_of_the_whole_run(folder, loader):
  examples = open_folder(folder, loader, "none").train
  whole = list(islice(train_batches(examples, batch_size=8, seed=1), 9))
  resumed = train_batches(examples, batch_size=8, seed=1, start_step=5)
  assert_batches_equal(list(islice(resumed, 4)), whole[5:])


@pytest.mark.parametrize("loader", LOADERS)
def test_slow_pictures_stay_in_their_place(folder, loader):
  examples = open_folder(folder, loader, "none").train

  def read(index):
    time.sleep(0.02 if index % 3 == 0 else 0)
    return examples.read(index)

  slow = dataclasses.replace(examples, read=read)
  batches = train_batches(slow, batch_size=6, seed=4)
  expected = list(islice(train_batches(examples, batch_size=6, seed=4), 5))
  assert_batches_equal(list(islice(batches, 5)), expected)


def test_batches_may_use_another_loader_than_loading(folder):
  examples = open_folder(folder, "tf").train
  other = dataclasses.replace(examples, loader="pillow")
  assert_batches_equal(
    list(islice(train_batches(other, batch_size=8, seed=1), 3)),
    list(islice(train_batches(examples, batch_size=8, seed=1), 3)),
  )


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("cache", CACHES)
def test_processes_share_each_batch(folder, loader, cache):
  examples = open_folder(folder, loader, cache).train
  whole = list(islice(train_batches(examples, batch_size=6, seed=2), 3))
  parts = [
    list(
      islice(
        train_batches(
          examples, batch_size=6, seed=2, process_index=index, process_count=3
        ),
        3,
      )
    )
    for index in range(3)
  ]
  tiled = [
    {name: np.concatenate([part[step][name] for part in parts]) for name in whole[step]}
    for step in range(3)
  ]
  assert_batches_equal(tiled, whole)


def test_a_batch_larger_than_the_data_set_is_refused_at_once(folder):
  examples = open_folder(folder).train
  with pytest.raises(
    ValueError, match=r"batch_size=41 is larger than the training set"
  ):
    train_batches(examples, batch_size=41, seed=0)


@pytest.mark.parametrize("make", [train_batches, validation_batches])
def test_a_batch_that_cannot_be_shared_is_refused_at_once(folder, make):
  options = {"seed": 0} if make is train_batches else {}
  with pytest.raises(ValueError, match=r"multiple of the number of processes \(3\)"):
    make(open_folder(folder).train, batch_size=8, process_count=3, **options)


@pytest.mark.parametrize("loader", LOADERS)
def test_closing_ends_the_work_in_the_background(folder, loader):
  started, finished = [], []
  examples = open_folder(folder, loader, "none").train

  def slow_read(index):
    started.append(index)
    time.sleep(0.02)
    finished.append(index)
    return examples.read(index)

  watched = dataclasses.replace(examples, read=slow_read)
  batches = train_batches(watched, batch_size=4, seed=0)
  next(batches)
  batches.close()  # while the next batches are being made
  at_close = len(started)
  assert len(finished) == at_close
  time.sleep(0.2)
  assert len(started) == at_close
  assert not [t for t in threading.enumerate() if t.name.startswith("data")]


INTERRUPTED = """
import dataclasses, os, signal, sys, threading, time
from pictures import load
from ctx_encoder.data import train_batches

# A shell that starts a process in the background lets it ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
examples = load(sys.argv[1], image_size=16, cache="none", loader=sys.argv[2]).train

def slow_read(index):
  time.sleep(0.05)  # work is left at the end: 3 batches are made ahead
  return examples.read(index)

slow = dataclasses.replace(examples, read=slow_read)
left_open = train_batches(slow, batch_size=16, seed=0)
next(left_open)
running = train_batches(slow, batch_size=16, seed=1)
next(running)
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
while True:
  next(running)
"""


def python(code, *arguments):
  """Starts Python with the tests' modules at hand."""
  path = os.pathsep.join([os.path.dirname(pictures.__file__), *sys.path])
  return subprocess.Popen(
    [sys.executable, "-c", code, *map(str, arguments)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {"PYTHONPATH": path},
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "loader", [pytest.param("tf", marks=pytest.mark.slow), "pillow"]
)
def test_an_interrupted_process_ends(folder, loader):
  process = python(INTERRUPTED, folder, loader)
  _, errors = process.communicate(timeout=240)  # TensorFlow loads slowly under load
  assert process.returncode == -signal.SIGINT, errors
  assert errors.endswith("KeyboardInterrupt\n")


# Validation batches


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_validation_shows_every_picture_once_in_order(
  folder, loader, cache, batch_size
):
  reference = open_folder(folder).validation
  examples = open_folder(folder, loader, cache).validation
  batches = list(validation_batches(examples, batch_size=batch_size))
  joined = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
  assert {b["image"].shape for b in batches} == {(batch_size, 16, 16, 3)}
  assert joined["weight"].dtype == np.float32
  assert joined["index"].dtype == np.int32
  count = len(reference)
  assert len(joined["weight"]) - count < batch_size
  np.testing.assert_array_equal(joined["weight"][:count], 1)
  np.testing.assert_array_equal(joined["weight"][count:], 0)
  np.testing.assert_array_equal(joined["index"][:count], reference.ids)
  np.testing.assert_array_equal(joined["image"][:count], reference.images)


@pytest.mark.parametrize("batch_size", [4, 8, 40])
def test_processes_validate_equal_steps_and_count_nothing_twice(folder, batch_size):
  examples = open_folder(folder).validation
  parts = [
    list(
      validation_batches(
        examples, batch_size=batch_size, process_index=index, process_count=4
      )
    )
    for index in range(4)
  ]
  assert len({len(part) for part in parts}) == 1
  counted = np.concatenate(
    [b["index"][b["weight"] == 1] for part in parts for b in part]
  )
  assert sorted(counted) == sorted(examples.ids)


# Without TensorFlow


@pytest.mark.parametrize(("cache", "loader"), [("memory", "pillow"), ("none", "tf")])
def test_tensorflow_is_loaded_only_for_pictures_decoded_every_epoch(
  folder, monkeypatch, cache, loader
):
  asked = []
  monkeypatch.setattr(streams, "find_tensorflow", lambda: asked.append(1) or "tf")
  data = load(folder, image_size=16, cache=cache)
  assert data.train.loader == data.validation.loader == loader
  assert bool(asked) == (loader == "tf")


WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
from pictures import load
from ctx_encoder.data import train_batches
for cache in ("memory", "none"):
  data = load(sys.argv[1], image_size=16, cache=cache)
  assert data.train.loader == "pillow"
  batch = next(train_batches(data.train, batch_size=8, seed=3))
  print(batch["image"].tobytes().hex() + batch["index"].tobytes().hex())
for path, loader in (
  (sys.argv[1], "tf"),
  (sys.argv[2], "auto"),
  ("cycle_gan/monet2photo", "auto"),
):
  try:
    load(path, loader=loader)
  except (ValueError, ImportError) as error:
    assert "pip install -e '.[tf]'" in str(error), error
  else:
    raise AssertionError(path)
"""


def test_folders_are_read_the_same_without_tensorflow(folder, tmp_path):
  records = tmp_path / "monet00.tfrec"
  records.write_bytes(b"")
  process = python(WITHOUT_TENSORFLOW, folder, records)
  output, errors = process.communicate(timeout=120)
  assert process.returncode == 0, errors
  examples = open_folder(folder, "tf").train
  batch = next(train_batches(examples, batch_size=8, seed=3))
  expected = batch["image"].tobytes().hex() + batch["index"].tobytes().hex()
  assert output.split() == [expected] * 2
