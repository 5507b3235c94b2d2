"""Sources of images: each is a list of names and a function that reads one image."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ctx_encoder.data import samples, tfds, tfrecord
from ctx_encoder.data.decode import EXTENSIONS
from ctx_encoder.data.examples import MissingData
from ctx_encoder.data.paths import read_file

KINDS = ("samples", "folder", "tfrecord", "tfds")

SAMPLES_NOTICE = (
  "No data is configured: using crops of 84 embedded photographs of landscapes. For"
  " results on pictures of yours set data.path to a folder of images or of the Kaggle"
  " TFRecords (monet_tfrec, photo_tfrec), or fetch the report's set: ctx-encoder data"
  " --path cycle_gan/monet2photo --split trainB --download"
)


@dataclasses.dataclass(frozen=True)
class Source:
  """Images that can be read one by one.

  Attributes:
    kind: samples, folder, tfrecord or tfds.
    names: stable distinct names, sorted.
    read: position in `names` to the encoded image, or its pixels.
    skipped: {name: reason} of listed images that cannot be read.
    validation: bool `[N]` if the source defines its own split, else None.
    notice: a message for the user, or "".
    labels: {name: class} of images that have one: the first folder of the name, or
      the class label of a TFDS data set.
  """

  kind: str
  names: list[str]
  read: Callable[[int], bytes | np.ndarray]
  skipped: dict[str, str] = dataclasses.field(default_factory=dict)
  validation: np.ndarray | None = None
  notice: str = ""
  labels: dict[str, str] = dataclasses.field(default_factory=dict)


def open_source(
  source: str = "auto",
  path: str = "",
  *,
  split: str = "train",
  data_dir: str = "",
  download: bool = False,
) -> Source:
  """Lists the images of a source.

  Args:
    source: samples, folder, tfrecord, tfds, or auto: see `source_kind`.
    path: a folder, a TFRecord file, or a TFDS name.
    split: TFDS split to read, in the syntax of TFDS (`trainA`, `train[:10%]`).
    data_dir: folder of the TFDS data sets; empty = its default.
    download: let TFDS download a missing data set. Nothing else uses the network.
  Returns:
    A source with at least one name.
  Raises:
    MissingData: there is nothing at `path`.
    ValueError: there are no images at `path`, or an argument is wrong.
    ModuleNotFoundError: the source needs a package that is not installed.
  """
  kind = source_kind(source, path)
  if kind == "samples":
    return _samples(notice=SAMPLES_NOTICE if source == "auto" else "")
  if not path:
    raise ValueError(f"data.source={kind} needs data.path.")
  if kind == "tfds":
    listing, labels = tfds.list_tfds(path, split, data_dir, download)
    return Source(kind, *listing, labels=labels)
  root = Path(path).expanduser()
  if not root.exists():
    raise _missing(path)
  if kind == "tfrecord":
    return Source(kind, *tfrecord.list_tfrecords(root))
  return _folder(root)


def source_kind(source: str, path: str) -> str:
  """Returns samples, folder, tfrecord or tfds.

  For source=auto: samples without a path, tfrecord for a TFRecord file or a folder that
  contains some, folder for any other existing path, and tfds for a name in the form of
  `cycle_gan/monet2photo`.

  Raises:
    MissingData: source=auto, and `path` neither exists nor has the form of a name.
    ValueError: no such kind.
  """
  if source in KINDS:
    return source
  if source != "auto":
    raise ValueError(f"data.source must be auto, {', '.join(KINDS)}, not {source!r}.")
  if not path:
    return "samples"
  root = Path(path).expanduser()
  if root.exists():
    files = root.iterdir() if root.is_dir() else [root]
    return "tfrecord" if any(map(tfrecord.is_tfrecord, files)) else "folder"
  # snake_case[/config][:version], as TFDS names its data sets.
  if re.fullmatch(r"[a-z][a-z0-9_]*(/[\w.+-]+)?(:[\d.*]+)?", path):
    return "tfds"
  raise _missing(path)


def find_images(root: Path) -> tuple[list[str], dict[str, str], int]:
  """Finds image files in a folder and below it by extension; ignores hidden ones.

  Returns:
    Relative names; {name: reason} of unreadable ones; the number of other files.
  """
  names, skipped, others = [], {}, 0

  def unreadable(error: OSError) -> None:
    skipped[_relative(Path(error.filename), root)] = error.strerror or "unreadable"

  for folder, folders, files in os.walk(root, onerror=unreadable):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for file in files:
      path = Path(folder, file)
      if file.startswith(".") or path.suffix.lower() not in EXTENSIONS:
        others += 1
      elif path.is_file():
        names.append(_relative(path, root))
      else:
        skipped[_relative(path, root)] = "not a file (broken link or device)"
  return names, skipped, others


def _relative(path: Path, root: Path) -> str:
  return path.relative_to(root).as_posix()


def _missing(path: str) -> MissingData:
  return MissingData(
    f"There is nothing at {path!r} (data.path): give an existing folder of images, or"
    " the new path if it has moved."
  )


def _samples(notice: str) -> Source:
  training, validation = samples.crops()
  crops = training | validation
  names = sorted(crops)
  held_out = np.array([name in validation for name in names])

  def read(position: int) -> np.ndarray:
    return samples.read(crops[names[position]])

  return Source("samples", names, read, validation=held_out, notice=notice)


def _folder(root: Path) -> Source:
  if not root.is_dir():
    raise ValueError(f"{root} (data.path) is a file: give the folder it is in.")
  names, skipped, others = find_images(root)
  if not names:
    raise ValueError(
      f"No images in {root} (data.path) or below: looked for"
      f" {' '.join(EXTENSIONS)}; found {others} other files."
    )
  names.sort()
  labels = {name: name.partition("/")[0] for name in names if "/" in name}

  def read(position: int) -> bytes:
    return read_file(root / names[position])

  return Source("folder", names, read, skipped, labels=labels)
