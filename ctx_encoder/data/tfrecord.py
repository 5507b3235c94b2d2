"""Pictures in TFRecord files: the Kaggle ones, and those that TFDS writes."""

import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ctx_encoder.data.decode import BadImage
from ctx_encoder.data.tensorflow_import import require_tensorflow

IMAGE_KEYS = ("image", "image/encoded")
NAME_KEYS = ("image_name", "image/filename", "filename", "file_name")

# uint64 length, uint32 checksum of it, the record, uint32 checksum of the record.
_HEADER = struct.Struct("<QI")
_FOOTER_SIZE = 4


class Shard(NamedTuple):
  """A file and which of its records to read."""

  path: Path
  name: str
  records: range | None = None  # None = all


Listing = tuple[list[str], Callable[[int], bytes], dict[str, str]]
Labels = dict[str, int]  # name to the number of its class


def is_tfrecord(path: Path) -> bool:
  """Tells by the name: photo00.tfrec, x.tfrecord, y.tfrecord-00000-of-00001."""
  return ".tfrec" in path.name and path.is_file()


def list_tfrecords(root: Path) -> Listing:
  """Lists the pictures in one TFRecord file, or in those of a folder and below.

  Records are `tf.train.Example` with the encoded picture in `image` (Kaggle) or
  `image/encoded`, and its name in `image_name` or `image/filename`; without a name, it
  is the file's with the record's number.

  Returns:
    (names, read, {name: reason} of what cannot be read).
  Raises:
    ValueError: no TFRecord file, or no picture in any record.
    ModuleNotFoundError: TensorFlow is not installed.
  """
  if root.is_file():
    shards = [Shard(root, root.name)]
  else:
    files = sorted(path for path in root.rglob("*") if is_tfrecord(path))
    shards = [Shard(path, path.relative_to(root).as_posix()) for path in files]
  if not shards:
    raise ValueError(f"No TFRecord files (*.tfrec, *.tfrecord*) in {root} (data.path).")
  return _list(shards, IMAGE_KEYS)[0]


def list_tfds(
  name: str, split: str, data_dir: str, download: bool
) -> tuple[Listing, dict[str, str]]:
  """Lists the pictures of a TFDS data set: its first feature that is an image.

  Their classes are those of its first feature that is a class label, if it has one.

  Args:
    name: a name that TFDS knows, such as `cycle_gan/monet2photo`.
    split: its split, in the syntax of TFDS.
    data_dir: where it is kept; empty = the default of TFDS.
    download: download and prepare it first, where that has not been done.
  Returns:
    (names, read, {name: reason} of what cannot be read), and {name: class}.
  Raises:
    FileNotFoundError: it is not there, and `download` is off.
    ValueError: no such split, no image feature, or not kept as TFRecords.
    ModuleNotFoundError: TensorFlow or TFDS is not installed.
  """
  what = f"{name!r} (no folder here, so taken for the name of a TFDS data set)"
  require_tensorflow(what)
  try:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files
  except ImportError as error:
    raise ModuleNotFoundError(
      f"Reading {what} needs TensorFlow Datasets: pip install tensorflow-datasets"
    ) from error
  directory = data_dir or None
  if download:
    _download(name, directory)
  try:
    # From the files alone: no code of the data set is run and nobody is asked.
    builder = builder_from_files(name, data_dir=directory)
  except tfds.core.DatasetNotFoundError as error:
    raise FileNotFoundError(
      f"{name!r} (data.path) is neither a folder nor a TFDS data set prepared in"
      f" {data_dir or 'the default folder of TFDS'}. To download it:"
      f" ctx-encoder data --path {name} --split {split} --download"
      " (or set data.download=true)."
    ) from error
  label, classes = _tfds_classes(builder)
  shards, image = _tfds_shards(builder, name, split), _tfds_image_key(builder, name)
  listing, labels = _list(shards, (image,), label)
  return listing, {name: classes[i] for name, i in labels.items() if i >= 0}


def _download(name: str, data_dir: str | None) -> None:
  import tensorflow_datasets as tfds

  try:
    builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    builder.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
  except tfds.core.DatasetNotFoundError as error:
    raise ValueError(f"TFDS knows no data set {name!r} (data.path).") from error
  except Exception as error:  # anything between here and the server of the data set
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    raise OSError(f"TFDS could not download {name!r}: {reason}") from error


def _tfds_shards(builder: Any, name: str, split: str) -> list[Shard]:
  try:
    instructions = builder.info.splits[split].file_instructions
  except (KeyError, ValueError) as error:
    raise ValueError(
      f"TFDS data set {name!r} has no split {split!r} (data.split): it has"
      f" {', '.join(sorted(builder.info.splits))}."
    ) from error
  paths = [Path(instruction.filename) for instruction in instructions]
  if not all(is_tfrecord(path) for path in paths):
    raise ValueError(
      f"TFDS data set {name!r} is not kept as TFRecords: prepare it with"
      " file_format='tfrecord'."
    )
  return [
    Shard(path, path.name, range(part.skip, part.skip + part.take))
    for path, part in zip(paths, instructions, strict=True)
  ]


def _tfds_image_key(builder: Any, name: str) -> str:
  import tensorflow_datasets as tfds

  for key, feature in builder.info.features.items():
    if isinstance(feature, tfds.features.Image):
      return key
  raise ValueError(
    f"TFDS data set {name!r} has no image among its features:"
    f" {', '.join(builder.info.features)}."
  )


def _tfds_classes(builder: Any) -> tuple[str, list[str]]:
  """Returns the feature that tells the class, or "", and the classes' names."""
  import tensorflow_datasets as tfds

  for key, feature in builder.info.features.items():
    if isinstance(feature, tfds.features.ClassLabel):
      return key, feature.names
  return "", []


def _list(
  shards: Iterable[Shard], image_keys: tuple[str, ...], label_key: str = ""
) -> tuple[Listing, Labels]:
  """Goes through all records once, for names, classes and where the pictures lie."""
  tf = require_tensorflow("TFRecord files")
  places: dict[str, tuple[Path, int, int, str]] = {}
  skipped: dict[str, str] = {}
  labels: Labels = {}
  features: set[str] = set()
  for shard in shards:
    offset = 0
    records = tf.data.TFRecordDataset(str(shard.path)).as_numpy_iterator()
    number = -1
    try:
      for number, record in enumerate(records):
        start, offset = offset, offset + _HEADER.size + len(record) + _FOOTER_SIZE
        if shard.records is not None and number not in shard.records:
          continue
        try:
          feature = _features(record)
        except BadImage as error:
          skipped[f"{shard.name}/{number:05d}"] = str(error)
          continue
        features.update(feature)
        name = _unique(_name(feature) or f"{shard.name}/{number:05d}", places)
        key = next((key for key in image_keys if _bytes(feature, key)), None)
        if key is None:
          skipped[name] = f"no picture in {' or '.join(image_keys)}"
        else:
          places[name] = (shard.path, start + _HEADER.size, len(record), key)
          if label_key in feature:
            labels[name] = feature[label_key].int64_list.value[0]
    except tf.errors.DataLossError:
      skipped[shard.name] = f"truncated or damaged after {number + 1} whole records"
  if not places:
    found = ", ".join(sorted(features)) or "none"
    raise ValueError(
      f"No pictures in the TFRecords: looked for the features"
      f" {' and '.join(image_keys)}, found {found}."
      + "".join(f" {name}: {reason}." for name, reason in list(skipped.items())[:3])
    )
  names = sorted(places)

  def read(position: int) -> bytes:
    path, offset, length, key = places[names[position]]
    with path.open("rb") as file:
      file.seek(offset)
      return _bytes(_features(file.read(length)), key)

  return (names, read, skipped), labels


def _features(record: bytes) -> Any:
  """Returns {name: feature} of a record; raises BadImage if it has none."""
  from google.protobuf.message import DecodeError  # comes with TensorFlow

  try:
    example = require_tensorflow("TFRecord files").train.Example.FromString(record)
  except DecodeError as error:
    raise BadImage("its record is no tf.train.Example") from error
  return example.features.feature


def _bytes(feature: Any, key: str) -> bytes:
  values = feature[key].bytes_list.value if key in feature else ()
  return values[0] if values else b""


def _name(feature: Any) -> str:
  name = next((name for key in NAME_KEYS if (name := _bytes(feature, key))), b"")
  return name.decode(errors="surrogateescape")


def _unique(name: str, taken: dict[str, Any]) -> str:
  unique, count = name, 2
  while unique in taken:
    unique, count = f"{name}#{count}", count + 1
  return unique
