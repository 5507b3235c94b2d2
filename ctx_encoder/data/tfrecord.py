"""Images in TFRecord files, as written by Kaggle and by TFDS."""

import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ctx_encoder.data.decode import BadImage
from ctx_encoder.data.tensorflow_import import require_tensorflow

IMAGE_KEYS = ("image", "image/encoded")
NAME_KEYS = ("image_name", "image/filename", "filename", "file_name")

# uint64 length, uint32 checksum of the length, record, uint32 checksum of the record.
_HEADER = struct.Struct("<QI")
_FOOTER_SIZE = 4


class Shard(NamedTuple):
  """A TFRecord file and the records to read from it."""

  path: Path
  name: str
  records: range | None = None  # None = all


Listing = tuple[list[str], Callable[[int], bytes], dict[str, str]]
Labels = dict[str, int]  # name to class number


def is_tfrecord(path: Path) -> bool:
  """Recognises names like photo00.tfrec, x.tfrecord, y.tfrecord-00000-of-00001."""
  return ".tfrec" in path.name and path.is_file()


def list_tfrecords(root: Path) -> Listing:
  """Lists the images in a TFRecord file, or in all those of a folder and below it.

  Records are `tf.train.Example`s with the encoded image in `image` (Kaggle) or
  `image/encoded`, and its name in `image_name` or `image/filename`; a record without
  a name is named by its file and number.

  Returns:
    (names, read, {name: reason} of unreadable ones).
  Raises:
    ValueError: no TFRecord file, or no image in any record.
    ModuleNotFoundError: TensorFlow is not installed.
  """
  if root.is_file():
    shards = [Shard(root, root.name)]
  else:
    files = sorted(path for path in root.rglob("*") if is_tfrecord(path))
    shards = [Shard(path, path.relative_to(root).as_posix()) for path in files]
  if not shards:
    raise ValueError(f"No TFRecord files (*.tfrec, *.tfrecord*) in {root} (data.path).")
  return list_shards(shards, IMAGE_KEYS)[0]


def list_shards(
  shards: Iterable[Shard], image_keys: tuple[str, ...], label_key: str = ""
) -> tuple[Listing, Labels]:
  """Scans all records once for names, classes and the places of the images.

  Args:
    shards: the files.
    image_keys: features that may contain the encoded image, the first one found counts.
    label_key: feature with the class number, or "".
  """
  tf = require_tensorflow("TFRecord files")
  places: dict[str, tuple[Path, int, int, str]] = {}
  skipped: dict[str, str] = {}
  labels: Labels = {}
  features: set[str] = set()
  for shard in shards:
    number = -1
    try:
      for number, (start, record) in enumerate(_records(tf, shard.path)):
        if shard.records is not None and number not in shard.records:
          continue
        place = f"{shard.name}/{number:05d}"
        try:
          feature = _features(record)
        except BadImage as error:
          skipped[place] = str(error)
          continue
        features.update(feature)
        name = _unique(_name(feature) or place, places)
        key = next((key for key in image_keys if _bytes(feature, key)), None)
        if key is None:
          skipped[name] = f"no picture in {' or '.join(image_keys)}"
        else:
          places[name] = shard.path, start, len(record), key
          if label_key in feature:
            labels[name] = feature[label_key].int64_list.value[0]
    except tf.errors.DataLossError:
      skipped[shard.name] = f"truncated or damaged after {number + 1} whole records"
    except tf.errors.OpError as error:
      skipped[shard.name] = f"cannot be read: {error.message}"
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


def _records(tf: Any, path: Path) -> Iterator[tuple[int, bytes]]:
  """Yields (offset in the file, record)."""
  offset = 0
  for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
    yield offset + _HEADER.size, record
    offset += _HEADER.size + len(record) + _FOOTER_SIZE


def _features(record: bytes) -> Any:
  """Parses a record to {name: feature}; raises BadImage if it is not an Example."""
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
