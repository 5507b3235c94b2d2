"""Images of TFDS data sets, read from their TFRecord files."""

from pathlib import Path
from typing import Any

from ctx_encoder.data.examples import MissingData
from ctx_encoder.data.tensorflow_import import INSTALL, require_tensorflow
from ctx_encoder.data.tfrecord import Listing, Shard, list_shards


def list_tfds(
  name: str, split: str, data_dir: str, download: bool
) -> tuple[Listing, dict[str, str]]:
  """Lists the images of a TFDS data set, from its first image feature.

  Classes come from its first class label feature, if it has one.

  Args:
    name: a TFDS name, such as `cycle_gan/monet2photo`.
    split: its split, in the syntax of TFDS.
    data_dir: folder of the TFDS data sets; empty = its default.
    download: download and prepare the data set first, unless that has been done.
  Returns:
    (names, read, {name: reason} of unreadable ones), and {name: class}.
  Raises:
    MissingData: it is not prepared and `download` is off, or files are missing.
    ValueError: no such split, no image feature, or not stored as TFRecords.
    ModuleNotFoundError: TensorFlow or TFDS is not installed.
    OSError: the download failed.
  """
  what = f"{name!r} (no folder here, so taken for the name of a TFDS data set)"
  require_tensorflow(what)
  try:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.read_only_builder import builder_from_files
  except ImportError as error:
    raise ModuleNotFoundError(
      f"Reading {what} needs TensorFlow Datasets: {INSTALL}"
    ) from error
  if download:
    _download(name, data_dir or None)
  try:
    # From the files: runs no code of the data set and uses no network.
    builder = builder_from_files(name, data_dir=data_dir or None)
  except tfds.core.DatasetNotFoundError as error:
    raise MissingData(
      f"{name!r} (data.path) is neither a folder nor a TFDS data set prepared in"
      f" {data_dir or 'the default folder of TFDS'}. If it has moved, give its folder"
      " (data.data_dir). To download it:"
      f" ctx-encoder data --path {name} --split {split} --download"
      " (or set data.download=true)."
    ) from error
  label, classes = _classes(builder)
  shards, image = _shards(builder, name, split), _image_key(builder, name)
  listing, labels = list_shards(shards, (image,), label)
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
  except Exception as error:  # anything between here and the data set's server
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    raise OSError(f"TFDS could not download {name!r}: {reason}") from error


def _shards(builder: Any, name: str, split: str) -> list[Shard]:
  try:
    instructions = builder.info.splits[split].file_instructions
  except (KeyError, ValueError) as error:
    raise ValueError(
      f"TFDS data set {name!r} has no split {split!r} (data.split): it has"
      f" {', '.join(sorted(builder.info.splits))}."
    ) from error
  paths = [Path(instruction.filename) for instruction in instructions]
  if not all(".tfrec" in path.name for path in paths):
    raise ValueError(
      f"TFDS data set {name!r} is not stored as TFRecords: prepare it with"
      " file_format='tfrecord'."
    )
  for path in paths:
    if not path.is_file():
      raise MissingData(
        f"TFDS data set {name!r} (data.path) is incomplete, {path} is missing: restore"
        " it, or remove the folder it was in and prepare the data set again:"
        f" ctx-encoder data --path {name} --split {split} --download"
      )
  return [
    Shard(path, path.name, range(part.skip, part.skip + part.take))
    for path, part in zip(paths, instructions, strict=True)
  ]


def _image_key(builder: Any, name: str) -> str:
  import tensorflow_datasets as tfds

  for key, feature in builder.info.features.items():
    if isinstance(feature, tfds.features.Image):
      return key
  raise ValueError(
    f"TFDS data set {name!r} has no image among its features:"
    f" {', '.join(builder.info.features)}."
  )


def _classes(builder: Any) -> tuple[str, list[str]]:
  """Returns the name of the class label feature, or "", and the class names."""
  import tensorflow_datasets as tfds

  for key, feature in builder.info.features.items():
    if isinstance(feature, tfds.features.ClassLabel):
      return key, feature.names
  return "", []
