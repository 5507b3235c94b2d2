"""Folders, TFRecords, TFDS and the embedded photographs, without a network."""

import os
import shutil
import socket
import struct

import numpy as np
import pytest
from pictures import encode, fill_folder, load, noise
from PIL import Image

from ctx_encoder import config as schema
from ctx_encoder import data
from ctx_encoder.data import MissingData, evaluation_settings, samples
from ctx_encoder.data.decode import decode
from ctx_encoder.data.sources import open_source, source_kind


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
  def refuse(*args, **kwargs):
    raise AssertionError(f"the network was asked for {args}")

  monkeypatch.setattr(socket.socket, "connect", refuse)
  monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def tf():
  return pytest.importorskip("tensorflow")


# Folders


def test_a_folder_is_listed_by_relative_names(tmp_path):
  fill_folder(tmp_path / "b", 2)
  fill_folder(tmp_path / "a" / "deep", 1)
  (tmp_path / "TOP.JPG").write_bytes(encode(noise(16, 16), "JPEG"))
  (tmp_path / "x.webp").write_bytes(encode(noise(16, 16), "WEBP"))
  (tmp_path / "notes.txt").write_text("no picture")
  (tmp_path / "._x.webp").write_bytes(b"what macOS leaves behind")
  fill_folder(tmp_path / ".thumbnails", 1)
  source = open_source(path=str(tmp_path))
  assert source.kind == "folder"
  assert source.names == [
    "TOP.JPG",
    "a/deep/picture000.png",
    "b/picture000.png",
    "b/picture001.png",
    "x.webp",
  ]
  assert source.read(3) == (tmp_path / "b" / "picture001.png").read_bytes()
  assert source.skipped == {}


def test_a_folder_reports_broken_links_and_devices(tmp_path):
  fill_folder(tmp_path, 1)
  (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
  os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
  source = open_source(path=str(tmp_path))
  assert source.names == ["picture000.png"]
  assert set(source.skipped) == {"gone.png", "pipe.png"}


def test_a_folder_without_images_lists_the_extensions(tmp_path):
  (tmp_path / "notes.txt").write_text("no picture")
  with pytest.raises(ValueError, match=r"No images in .*\.jpg.*found 1 other files"):
    load(path=str(tmp_path))


def test_a_file_instead_of_a_folder(tmp_path):
  fill_folder(tmp_path, 1)
  with pytest.raises(ValueError, match="is a file: give the folder"):
    load(path=str(tmp_path / "picture000.png"))


def test_a_missing_path_is_one_clear_error(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for path in ("./photos", "/nowhere/photos", "a/b/c", "Photos", "~/x"):
    with pytest.raises(MissingData, match=rf"nothing at '{path}' \(data\.path\): give"):
      load(path)
  for source in ("folder", "tfrecord"):
    with pytest.raises(MissingData, match="nothing at"):
      load(tmp_path / "nowhere", source=source)


def test_wrong_sources(tmp_path):
  for source in ("folder", "tfrecord", "tfds"):
    with pytest.raises(ValueError, match=rf"data\.source={source} needs data\.path"):
      load(source=source)
  with pytest.raises(ValueError, match="must be auto, samples, folder"):
    load(tmp_path, source="zip")


# The data set of an evaluation


def run_settings(**fields):
  settings = schema.default().data
  settings.update(fields)
  return settings


def test_evaluation_reads_the_runs_own_data_set_by_default(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "photos").mkdir()
  run = run_settings(path="photos", max_images=5, download=True, loader="tf")
  for path in (None, "photos", "./photos", str(tmp_path / "photos")):
    settings, own = evaluation_settings(run, path, cache="none", image_size=32)
    assert own
    assert (settings.path, settings.max_images) == ("photos", 5)
    assert (settings.cache, settings.image_size) == ("none", 32)
    assert (settings.download, settings.max_bad_share) == (False, 1.0)
    assert settings.loader == "auto"
  assert (run.cache, run.download, run.loader) == ("auto", True, "tf")


def test_evaluation_reads_another_folder(tmp_path):
  fill_folder(tmp_path, 3)
  run = run_settings(source="tfds", path="gone/away", split="trainB", max_images=5)
  settings, own = evaluation_settings(run, str(tmp_path))
  assert not own
  assert (settings.source, settings.split, settings.max_images) == ("auto", "train", 0)
  with pytest.raises(MissingData, match="gone/away"):
    open_source("tfds", "gone/away", data_dir=str(tmp_path))


def test_a_given_folder_is_never_the_embedded_photographs(tmp_path, monkeypatch):
  fill_folder(tmp_path, 3)
  monkeypatch.chdir(tmp_path)
  for run in (run_settings(), run_settings(source="samples", path=".")):
    settings, own = evaluation_settings(run, ".", image_size=16)
    assert not own
    assert data.load(settings, everything=True).summary.source == "folder"
    settings, own = evaluation_settings(run)
    assert own
    assert source_kind(settings.source, settings.path) == "samples"
    settings, own = evaluation_settings(run, "")
    assert not own
    with pytest.raises(ValueError, match=r"needs data\.path"):
      data.load(settings)


def test_evaluation_reads_a_split_of_its_own():
  run = run_settings(path="cycle_gan/monet2photo", split="trainA", max_images=5)
  for path, split, expected in (
    (None, None, ("trainA", 5, True)),
    (None, "trainA", ("trainA", 5, True)),
    (None, "testA", ("testA", 0, False)),
    ("cycle_gan/monet2photo", "testA", ("testA", 0, False)),
    ("tiny_paintings", None, ("train", 0, False)),
    ("tiny_paintings", "testB", ("testB", 0, False)),
  ):
    settings, own = evaluation_settings(run, path, split)
    assert (settings.split, settings.max_images, own) == expected


def test_a_split_of_other_sources_is_refused(tmp_path):
  for path in (None, str(tmp_path)):
    with pytest.raises(ValueError, match="testA applies to TFDS data sets only"):
      evaluation_settings(run_settings(), path, "testA")


# TFRecords


def example(tf, **features):
  def feature(value):
    if isinstance(value, int):
      return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

  features = {name: feature(value) for name, value in features.items()}
  record = tf.train.Example(features=tf.train.Features(feature=features))
  return record.SerializeToString()


def write_records(tf, path, records):
  path.parent.mkdir(parents=True, exist_ok=True)
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record)


@pytest.fixture
def kaggle(tf, tmp_path):
  """Two files as Kaggle has them; returns the folder and {name: pixels}."""
  pictures = {f"{number:010x}": noise(16, 16, seed=number) for number in range(7)}
  records = [
    example(tf, image_name=name.encode(), image=encode(pixels), target=b"monet")
    for name, pixels in pictures.items()
  ]
  write_records(tf, tmp_path / "monet_tfrec" / "monet00-4.tfrec", records[:4])
  write_records(tf, tmp_path / "monet_tfrec" / "monet04-3.tfrec", records[4:])
  return tmp_path / "monet_tfrec", pictures


def test_kaggle_tfrecords(kaggle):
  folder, pictures = kaggle
  source = open_source(path=str(folder))
  assert source.kind == "tfrecord"
  assert source.names == sorted(pictures)
  for position, name in enumerate(source.names):
    np.testing.assert_array_equal(decode(source.read(position), 16), pictures[name])


def test_one_tfrecord_file(kaggle):
  folder, pictures = kaggle
  source = open_source(path=str(folder / "monet04-3.tfrec"))
  assert source.names == sorted(pictures)[4:]


def test_complete_records_of_a_truncated_file_are_kept(kaggle):
  folder, pictures = kaggle
  file = folder / "monet04-3.tfrec"
  whole = file.read_bytes()
  for cut in (1, 5, 50):
    file.write_bytes(whole[:-cut])
    source = open_source(path=str(folder))
    assert source.names == sorted(pictures)[:6]
    assert source.skipped == {
      "monet04-3.tfrec": "truncated or damaged after 2 whole records"
    }


def test_damaged_record_ends_its_file(kaggle):
  folder, pictures = kaggle
  file = folder / "monet00-4.tfrec"
  data = bytearray(file.read_bytes())
  (length,) = struct.unpack("<Q", data[:8])
  data[16 + length + 40] ^= 0xFF  # within the second record: its checksum is wrong now
  file.write_bytes(data)
  source = open_source(path=str(folder))
  assert source.names == [sorted(pictures)[0], *sorted(pictures)[4:]]
  assert list(source.skipped) == ["monet00-4.tfrec"]


def test_records_without_names_are_named_by_file_and_number(tf, tmp_path):
  records = [example(tf, **{"image/encoded": encode(noise(16, 16))})] * 2
  write_records(tf, tmp_path / "deep" / "a.tfrecord-00000-of-00001", records)
  source = open_source("tfrecord", str(tmp_path))
  assert source.names == [
    "deep/a.tfrecord-00000-of-00001/00000",
    "deep/a.tfrecord-00000-of-00001/00001",
  ]


def test_repeated_names_are_numbered(tf, tmp_path):
  records = [
    example(tf, image_name=b"same", image=encode(noise(16, 16, seed=seed)))
    for seed in range(3)
  ]
  write_records(tf, tmp_path / "a.tfrec", records)
  source = open_source(path=str(tmp_path))
  assert source.names == ["same", "same#2", "same#3"]
  assert len({bytes(source.read(position)) for position in range(3)}) == 3


def test_records_without_a_picture(tf, tmp_path):
  records = [
    example(tf, image_name=b"good", image=encode(noise(16, 16))),
    example(tf, image_name=b"bad", target=b"monet"),
  ]
  write_records(tf, tmp_path / "a.tfrec", records)
  assert open_source(path=str(tmp_path)).skipped == {
    "bad": "no picture in image or image/encoded"
  }
  write_records(tf, tmp_path / "a.tfrec", [example(tf, label=3, text=b"x")])
  with pytest.raises(ValueError, match="found label, text"):
    open_source(path=str(tmp_path))


def test_records_that_are_not_examples(tf, tmp_path):
  path = tmp_path / "x.tfrec"
  whole = example(tf, image=encode(noise(16, 16)))
  write_records(tf, path, [whole, b"\xff" * 40, whole])
  source = open_source(path=str(path))
  assert source.names == ["x.tfrec/00000", "x.tfrec/00002"]
  assert source.skipped == {"x.tfrec/00001": "its record is no tf.train.Example"}


def test_no_tfrecords(tmp_path):
  fill_folder(tmp_path, 1)
  with pytest.raises(ValueError, match="No TFRecord files"):
    open_source("tfrecord", str(tmp_path))


def test_empty_tfrecord(tmp_path, tf):
  (tmp_path / "a.tfrec").write_bytes(b"")
  with pytest.raises(ValueError, match="No pictures in the TFRecords"):
    open_source(path=str(tmp_path))


# TFDS


@pytest.fixture(scope="module")
def tiny_tfds(tmp_path_factory):
  """Builds a data set of 6 pictures in 2 splits, as TFDS would after a download."""
  tfds = pytest.importorskip("tensorflow_datasets")

  class TinyPaintings(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      features = {"label": tfds.features.Text(), "painting": tfds.features.Image()}
      features = tfds.features.FeaturesDict(features)
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
      return {"trainA": self._generate_examples(4), "testA": self._generate_examples(2)}

    def _generate_examples(self, count):
      for number in range(count):
        yield number, {"label": "x", "painting": noise(16, 16, seed=number)}

  data_dir = tmp_path_factory.mktemp("tfds")
  TinyPaintings(data_dir=data_dir).download_and_prepare()
  return data_dir


def test_tfds(tiny_tfds):
  source = open_source(path="tiny_paintings", split="trainA", data_dir=str(tiny_tfds))
  assert source.kind == "tfds"
  assert len(source.names) == 4
  assert source.names[0] == "tiny_paintings-trainA.tfrecord-00000-of-00001/00000"
  decoded = {decode(source.read(position), 16).tobytes() for position in range(4)}
  assert decoded == {noise(16, 16, seed=seed).tobytes() for seed in range(4)}


def test_tfds_part_of_a_split_keeps_the_names(tiny_tfds):
  def names(split):
    return open_source(
      "tfds", "tiny_paintings", split=split, data_dir=str(tiny_tfds)
    ).names

  assert names("trainA[50%:]") == names("trainA")[2:]
  assert len(names("trainA+testA")) == 6


def test_tfds_version_in_the_name(tiny_tfds):
  name = "tiny_paintings:1.0.0"
  source = open_source(path=name, split="testA", data_dir=str(tiny_tfds))
  assert len(source.names) == 2


def test_tfds_unknown_split_lists_the_splits(tiny_tfds):
  with pytest.raises(ValueError, match=r"no split 'train'.*testA, trainA"):
    open_source("tfds", "tiny_paintings", data_dir=str(tiny_tfds))


def test_tfds_files_that_are_missing(tiny_tfds, tmp_path):
  shutil.copytree(tiny_tfds, tmp_path, dirs_exist_ok=True)
  (file,) = tmp_path.rglob("*-testA.tfrecord*")
  file.unlink()
  with pytest.raises(
    MissingData, match=r"incomplete, .*testA.* is missing: restore it"
  ):
    open_source("tfds", "tiny_paintings", split="testA", data_dir=str(tmp_path))
  assert open_source(
    "tfds", "tiny_paintings", split="trainA", data_dir=str(tmp_path)
  ).names


def test_tfds_is_not_downloaded_unless_asked(tmp_path):
  pytest.importorskip("tensorflow_datasets")
  with pytest.raises(MissingData, match=r"cycle_gan/monet2photo.*moved.*--download"):
    load(path="cycle_gan/monet2photo", data_dir=str(tmp_path))
  assert list(tmp_path.iterdir()) == []


def test_tfds_download_prepares_what_needs_no_network(tiny_tfds, tmp_path):
  source = open_source(
    "tfds", "tiny_paintings", split="testA", data_dir=str(tmp_path), download=True
  )
  assert len(source.names) == 2


def test_tfds_download_of_an_unknown_name(tmp_path):
  pytest.importorskip("tensorflow_datasets")
  with pytest.raises(ValueError, match="TFDS knows no data set 'no_such_data_set'"):
    load(path="no_such_data_set", data_dir=str(tmp_path), download=True)


def test_tfds_download_reports_a_network_failure(tmp_path):
  pytest.importorskip("tensorflow_datasets")
  pytest.importorskip(
    "importlib_resources"
  )  # TFDS downloads with it, and forgets to say
  failure = "TFDS could not download 'cycle_gan/monet2photo': the network was asked"
  with pytest.raises(OSError, match=failure):
    load(path="cycle_gan/monet2photo", data_dir=str(tmp_path), download=True)


@pytest.fixture(scope="module")
def labelled_tfds(tmp_path_factory):
  """A data set of 4 pictures with classes, the last of them unknown."""
  tfds = pytest.importorskip("tensorflow_datasets")

  class TinyAnimals(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      kind = tfds.features.ClassLabel(names=["cat", "dog"])
      features = {"image": tfds.features.Image(), "kind": kind}
      features = tfds.features.FeaturesDict(features)
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for number, kind in enumerate(["dog", "cat", "dog", -1]):
        yield number, {"image": noise(16, 16, seed=number), "kind": kind}

  data_dir = tmp_path_factory.mktemp("labelled")
  TinyAnimals(data_dir=data_dir).download_and_prepare()
  return data_dir


def test_tfds_classes(labelled_tfds):
  loaded = load(
    path="tiny_animals",
    data_dir=str(labelled_tfds),
    image_size=16,
    validation_fraction=0.0,
  )
  assert len(loaded.labels) == 3
  expected = {
    noise(16, 16, seed=number).tobytes(): kind
    for number, kind in enumerate(["dog", "cat", "dog"])
  }
  examples = loaded.train
  for name, image in zip(examples.names, examples.images, strict=True):
    assert loaded.labels.get(name) == expected.get(image.tobytes())


def test_classes_are_the_folders(tmp_path):
  for folder in ("cat", "dog/small", "dog/large"):
    fill_folder(tmp_path / folder, 1)
  fill_folder(tmp_path, 1)
  loaded = load(path=str(tmp_path), image_size=16, validation_fraction=0.0)
  assert loaded.labels == {
    "cat/picture000.png": "cat",
    "dog/large/picture000.png": "dog",
    "dog/small/picture000.png": "dog",
  }


# The embedded photographs


@pytest.fixture(scope="module")
def crops():
  pytest.importorskip("skimage")
  return samples.crops()


def test_all_photographs_are_there(crops):
  found, missing = crops
  assert missing == {}
  assert {photograph for photograph, _ in found.values()} == set(samples.PHOTOGRAPHS)


def test_photographs_are_those_of_scikit_image():
  from skimage import data as skimage_data

  np.testing.assert_array_equal(samples.pixels("chelsea"), skimage_data.chelsea())
  left, _, _ = skimage_data.stereo_motorcycle()
  np.testing.assert_array_equal(samples.pixels("motorcycle"), left)


def test_there_are_enough_crops(crops):
  found, _ = crops
  validation = sum("/validation/" in name for name in found)
  assert len(found) - validation >= 500
  assert validation >= 100


def test_training_and_validation_crops_share_no_pixel(crops):
  found, _ = crops
  for photograph in samples.PHOTOGRAPHS:
    height, width, _ = samples.pixels(photograph).shape
    seen = {split: np.zeros((height, width), bool) for split in ("train", "validation")}
    for name, (of, box) in found.items():
      if of != photograph:
        continue
      assert 0 <= box.left <= width - box.side
      assert 0 <= box.top <= height - box.side
      bottom, right = box.top + box.side, box.left + box.side
      seen[name.split("/")[1]][box.top : bottom, box.left : right] = True
    assert seen["train"].any()
    assert not np.any(seen["train"] & seen["validation"])


def test_every_crop_has_structure(crops):
  found, _ = crops
  for photograph, (left, top, side) in found.values():
    crop = samples.pixels(photograph)[top : top + side, left : left + side]
    assert crop.std(axis=(0, 1)).mean() > 20


def test_crops_are_the_pixels_that_their_names_state(crops):
  loaded = load(source="samples", image_size=32, loader="pillow")
  assert loaded.summary.notice == ""
  for examples, split in ((loaded.train, "train"), (loaded.validation, "validation")):
    assert all(f"/{split}/" in name for name in examples.names)
    index = len(examples) // 2
    photograph, box = crops[0][examples.names[index]]
    bottom, right = box.top + box.side, box.left + box.side
    crop = samples.pixels(photograph)[box.top : bottom, box.left : right]
    expected = Image.fromarray(crop).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(examples.images[index], np.asarray(expected))


def test_default_settings_give_the_photographs_and_a_notice():
  summary = load(max_images=40, image_size=16, loader="pillow").summary
  assert (summary.source, summary.where) == ("samples", "the embedded photographs")
  assert "No data is configured" in summary.notice
  assert "cycle_gan/monet2photo" in summary.notice


def test_photographs_without_scikit_image(monkeypatch):
  samples.pixels.cache_clear()
  samples.crops.cache_clear()
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(ModuleNotFoundError, match="pip install scikit-image"):
    load(loader="pillow")


def test_missing_photographs_are_reported(monkeypatch):
  monkeypatch.setitem(samples.PHOTOGRAPHS, "unicorn", "unicorn.png")
  samples.crops.cache_clear()
  source = open_source()
  samples.crops.cache_clear()
  assert source.skipped == {"unicorn": "not shipped with this version of scikit-image"}
