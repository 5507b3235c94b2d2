"""Images in TFRecord files, as written by Kaggle and by TFDS."""

import functools
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ctx_encoder.data.decode import BadImage
from ctx_encoder.data.paths import read_file
from ctx_encoder.data.tensorflow_import import require_tensorflow

IMAGE_KEYS = ("image", "image/encoded")
NAME_KEYS = ("image_name", "image/filename", "filename", "file_name")

# uint64 length, uint32 checksum of the length, record, uint32 checksum of the record.
_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")


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
    for number, start, record in _records(tf, shard):
      place = f"{shard.name}/{number:05d}"
      try:
        if isinstance(record, str):
          raise BadImage(record)
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
    return _bytes(_features(read_file(path, offset, length)), key)

  return (names, read, skipped), labels


Record = tuple[int, int, bytes | str]  # number, offset in the file, content or defect


def _records(tf: Any, shard: Shard) -> Iterator[Record]:
  """Yields the wanted records of a file, in place of each bad one what is wrong.

  TensorFlow stops at the first damage; the rest is read here, more slowly.
  """
  wanted = shard.records
  number, offset = -1, 0
  try:
    for content in tf.data.TFRecordDataset(str(shard.path)).as_numpy_iterator():
      number += 1
      if wanted is None or number in wanted:
        yield number, offset + _HEADER.size, content
      offset += _HEADER.size + len(content) + _FOOTER.size
  except tf.errors.DataLossError:
    for start, content in _salvaged(shard.path, offset):
      number += 1
      if wanted is None or number in wanted:
        yield number, start, content
  except tf.errors.OpError as error:
    yield number + 1, offset, f"cannot be read: {error.message}"
    return
  for missing in range(number + 1, wanted.stop if wanted else 0):
    if missing in (wanted or ()):
      yield missing, offset, "missing, its file ends before"


def _salvaged(path: Path, offset: int) -> Iterator[tuple[int, bytes | str]]:
  """Yields (offset in the file, record or defect), from a record on.

  Where a record's length is damaged too, all up to the next length with the right
  checksum counts as one bad record.
  """
  try:
    data = read_file(path, offset)
  except OSError as error:
    yield offset, f"cannot be read: {error.strerror}"
    return
  at = 0
  while at < len(data):
    start = at + _HEADER.size
    end = _end(data, at)
    if end is None:
      at = _next_record(data, at + 1)
      yield offset + start, "truncated, or damaged in its length"
      continue
    at = end
    content, footer = data[start : end - _FOOTER.size], data[end - _FOOTER.size : end]
    right = footer == _FOOTER.pack(_masked(_crc(content)))
    yield offset + start, content if right else "damaged, its checksum is wrong"


def _end(data: bytes, at: int) -> int | None:
  """Returns where the record at a place ends, or None if no complete one begins."""
  if at + _HEADER.size > len(data):
    return None
  length, checksum = _HEADER.unpack_from(data, at)
  end = at + _HEADER.size + length + _FOOTER.size
  right = end <= len(data) and checksum == _masked(_crc(data[at : at + 8]))
  return end if right else None


def _next_record(data: bytes, at: int) -> int:
  """Returns the first place from `at` on where a complete record begins, or the end."""
  count = 1024  # places looked at together; the search stays linear in what it skips
  while (count := min(2 * count, len(data) - at - _HEADER.size + 1)) > 0:
    window = np.frombuffer(data, np.uint8, count + _HEADER.size - 1, at)
    columns = [window[i : i + count].astype(np.uint32) for i in range(_HEADER.size)]
    crc = np.full(count, 0xFFFFFFFF, np.uint32)
    for column in columns[:8]:
      crc = _crc_table()[(crc ^ column) & 0xFF] ^ (crc >> 8)
    stored = sum(column << 8 * i for i, column in enumerate(columns[8:]))
    for place in np.flatnonzero(_masked(crc ^ 0xFFFFFFFF) == stored):
      if _end(data, at + int(place)) is not None:
        return at + int(place)
    at += count
  return len(data)


@functools.cache
def _crc_table() -> np.ndarray:
  """Returns the table of CRC-32C, uint32 `[256]`."""
  table = np.arange(256, dtype=np.uint32)
  for _ in range(8):
    table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
  return table


def _crc(data: bytes) -> int:
  table, crc = _crc_table().tolist(), 0xFFFFFFFF
  for byte in data:
    crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
  return crc ^ 0xFFFFFFFF


def _masked(crc: Any) -> Any:
  """Returns a CRC or an array of them as TFRecord files store it."""
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


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
