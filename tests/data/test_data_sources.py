"""Folders, TFRecords, TFDS and the embedded photographs, without a network."""

import io
import os
import re
import shutil
import socket
import struct

import numpy as np
import pytest
from pictures import encode, fill_folder, load, noise
from PIL import Image

from ctx_encoder import config as schema
from ctx_encoder import data
from ctx_encoder.data import (
  MissingData,
  TooManyBadImages,
  evaluation_settings,
  landscapes,
  paths,
  samples,
)
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


def test_a_file_that_never_ends_is_empty(tmp_path):
  # The kernel calls it a regular file of no bytes, and has gigabytes of it to read.
  (tmp_path / "endless.png").symlink_to("/proc/self/pagemap")
  source = open_source(path=str(tmp_path))
  assert source.read(0) == b""


def test_a_file_above_the_limit_is_refused_unread(tmp_path, monkeypatch):
  fill_folder(tmp_path, 1)
  monkeypatch.setattr(paths, "MAX_BYTES", 100)
  with pytest.raises(OSError, match=r"\d+ bytes, above 100"):
    open_source(path=str(tmp_path)).read(0)


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
      "monet04-3.tfrec/00002": "truncated, or damaged in its length"
    }


def starts_of(file):
  """Returns where each record of a TFRecord file begins."""
  data, starts = file.read_bytes(), [0]
  while starts[-1] < len(data):
    starts.append(starts[-1] + 16 + struct.unpack_from("<Q", data, starts[-1])[0])
  return starts[:-1]


@pytest.mark.parametrize(
  ("offset", "reason"),
  [(40, "damaged, its checksum is wrong"), (0, "truncated, or damaged in its length")],
)
def test_records_after_a_damaged_one_are_read(tf, tmp_path, offset, reason):
  file = tmp_path / "a.tfrec"
  pictures = [noise(16, 16, seed=seed) for seed in range(40)]
  write_records(tf, file, [example(tf, image=encode(pixels)) for pixels in pictures])
  data, starts = bytearray(file.read_bytes()), starts_of(file)
  for number in (19, 30):
    data[starts[number] + offset] ^= 0xFF
  file.write_bytes(data)
  source = open_source(path=str(file))
  assert source.skipped == {f"a.tfrec/{n:05d}": reason for n in (19, 30)}
  good = [number for number in range(40) if number not in (19, 30)]
  assert source.names == [f"a.tfrec/{number:05d}" for number in good]
  for position, number in enumerate(good):
    decoded = decode(source.read(position), 16)
    np.testing.assert_array_equal(decoded, pictures[number])


def test_damaged_records_count_for_max_bad_share(tf, tmp_path):
  file = tmp_path / "a.tfrec"
  write_records(tf, file, [example(tf, image=encode(noise(16, 16)))] * 20)
  data = bytearray(file.read_bytes())
  for start in starts_of(file)[:5]:
    data[start + 20] ^= 1
  file.write_bytes(data)
  options = {"image_size": 16, "validation_fraction": 0.0}
  assert len(load(file, max_bad_share=0.25, **options).train) == 15
  with pytest.raises(TooManyBadImages, match="5 of 20 images cannot be used"):
    load(file, max_bad_share=0.2, **options)


def test_nothing_is_found_in_zeros_and_noise(tmp_path, tf):
  for content in (bytes(100_000), np.random.default_rng(0).bytes(100_000)):
    (tmp_path / "a.tfrec").write_bytes(content)
    with pytest.raises(ValueError, match="No pictures in the TFRecords"):
      open_source(path=str(tmp_path))


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


def test_tfds_records_that_a_truncated_file_lacks_are_counted(tiny_tfds, tmp_path):
  shutil.copytree(tiny_tfds, tmp_path, dirs_exist_ok=True)
  (file,) = tmp_path.rglob("*-trainA.tfrecord*")
  file.write_bytes(file.read_bytes()[: starts_of(file)[1] + 20])
  source = open_source("tfds", "tiny_paintings", split="trainA", data_dir=str(tmp_path))
  assert len(source.names) == 1
  reasons = [source.skipped[f"{file.name}/{number:05d}"] for number in (1, 2, 3)]
  assert reasons == ["truncated, or damaged in its length"] + 2 * [
    "missing, its file ends before"
  ]


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


def test_no_photograph_is_in_both_splits():
  training, validation = samples.crops()
  of = [
    {crop.photograph for crop in split.values()} for split in (training, validation)
  ]
  assert of == [set(names) for names in landscapes.split()]
  assert len(training) > 2000
  assert len(validation) > 500


def test_crops_of_each_size_cover_their_photograph():
  training, validation = samples.crops()
  for crops in (training, validation):
    seen = np.zeros((len(samples.SIDES), samples.HEIGHT, samples.WIDTH), bool)
    name = next(iter(crops.values())).photograph
    for crop in crops.values():
      if crop.photograph == name:
        assert crop.left + crop.side <= samples.WIDTH
        rows = slice(crop.top, crop.top + crop.side)
        columns = slice(crop.left, crop.left + crop.side)
        seen[samples.SIDES.index(crop.side), rows, columns] = True
    assert seen.all()


def test_all_photographs_have_the_size_that_crops_assume():
  for name in landscapes.names():
    with Image.open(io.BytesIO(landscapes.encoded(name))) as image:
      assert image.size == (samples.WIDTH, samples.HEIGHT)


def test_crops_are_the_pixels_that_their_names_state():
  loaded = load(source="samples", max_images=20, image_size=32, loader="pillow")
  assert loaded.summary.notice == ""
  names = (*loaded.train.names, *loaded.validation.names)
  images = np.concatenate([loaded.train.images, loaded.validation.images])
  assert len(names) == 20
  for index in (0, len(loaded.train), -1):
    photograph, side, top, left = re.split("[/_]", names[index])
    side, top, left = int(side), int(top), int(left)
    crop = landscapes.read(photograph)[top : top + side, left : left + side]
    expected = Image.fromarray(crop).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(images[index], np.asarray(expected))


def test_default_settings_give_the_photographs_and_a_notice():
  summary = load(max_images=20, image_size=16, cache="none").summary
  assert (summary.source, summary.where) == ("samples", "the embedded photographs")
  assert "No data is configured" in summary.notice
  assert "cycle_gan/monet2photo" in summary.notice
