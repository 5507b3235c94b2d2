"""Where pictures come from: every source is a list of names and a way to read one."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ctx_encoder.data import samples, tfrecord

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

SAMPLES_NOTICE = (
  "No data is configured: using crops of the photographs embedded in scikit-image."
  " They show that everything works, not how well. For real results set data.path to"
  " a folder of images or of the Kaggle TFRecords (monet_tfrec, photo_tfrec), or fetch"
  " the report's set: ctx-encoder data --path cycle_gan/monet2photo --split trainB"
  " --download"
)


@dataclasses.dataclass(frozen=True)
class Source:
  """Pictures that can be read one by one.

  Attributes:
    kind: samples, folder, tfrecord or tfds.
    names: stable names, sorted, each once.
    read: position in `names` to the encoded picture, or its pixels.
    skipped: {name: reason} of what was found and cannot be read.
    validation: bool `[N]` where the source has a split of its own, else None.
    notice: what the user should know about it, or "".
    labels: {name: class} of the pictures that have one: in a folder, the folder below
      it that they are in; of a TFDS data set, its class label.
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
  """Opens a source by its kind, or by what `path` is.

  Args:
    source: samples, folder, tfrecord, tfds, or auto: no path means samples, a folder
      with *.tfrec files in it tfrecord, any other folder folder, and a name like
      `cycle_gan/monet2photo` tfds.
    path: a folder, a TFRecord file, or a TFDS name.
    split: TFDS split to read, in the syntax of TFDS (`trainA`, `train[:10%]`).
    data_dir: where TFDS keeps its data sets; empty = its default.
    download: let TFDS download what is not there. Nothing else uses the network.
  Returns:
    A source with at least one name.
  Raises:
    FileNotFoundError: there is nothing at `path`.
    ValueError: there is something, but no pictures in it.
  """
  kind = _kind(path) if source == "auto" else source
  if kind == "samples":
    return _samples(notice=SAMPLES_NOTICE if source == "auto" else "")
  if not path:
    raise ValueError(f"data.source={kind} needs data.path.")
  if kind == "tfds":
    listing, labels = tfrecord.list_tfds(path, split, data_dir, download)
    return Source(kind, *listing, labels=labels)
  root = Path(path).expanduser()
  if not root.exists():
    raise FileNotFoundError(_missing(path))
  if kind == "tfrecord":
    return Source(kind, *tfrecord.list_tfrecords(root))
  if kind == "folder":
    return _folder(root)
  raise ValueError(
    f"data.source must be auto, samples, folder, tfrecord or tfds, not {source!r}."
  )


def _kind(path: str) -> str:
  if not path:
    return "samples"
  root = Path(path).expanduser()
  if root.is_dir():
    has_records = any(tfrecord.is_tfrecord(entry) for entry in root.iterdir())
    return "tfrecord" if has_records else "folder"
  if root.exists():
    return "tfrecord" if tfrecord.is_tfrecord(root) else "folder"
  # snake_case[/config][:version], as TFDS names its data sets.
  if re.fullmatch(r"[a-z][a-z0-9_]*(/[\w.+-]+)?(:[\d.*]+)?", path):
    return "tfds"
  raise FileNotFoundError(_missing(path))


def _missing(path: str) -> str:
  return f"There is nothing at {path!r} (data.path): give an existing folder of images."


def _samples(notice: str) -> Source:
  crops, missing = samples.crops()
  names = sorted(crops)

  def read(position: int) -> np.ndarray:
    photograph, (left, top, side) = crops[names[position]]
    return samples.pixels(photograph)[top : top + side, left : left + side]

  validation = np.array(["/validation/" in name for name in names])
  return Source("samples", names, read, missing, validation, notice)


def _folder(root: Path) -> Source:
  """Lists the pictures in a folder and all folders below it, hidden ones left out."""
  if not root.is_dir():
    raise ValueError(f"{root} (data.path) is a file: give the folder it is in.")
  names, skipped, others = [], {}, 0

  def unreadable(error: OSError) -> None:
    skipped[_relative(Path(error.filename), root)] = error.strerror or "unreadable"

  for folder, folders, files in os.walk(root, onerror=unreadable):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for file in files:
      file_path = Path(folder, file)
      if file.startswith(".") or file_path.suffix.lower() not in EXTENSIONS:
        others += 1
      elif file_path.is_file():
        names.append(_relative(file_path, root))
      else:
        skipped[_relative(file_path, root)] = "not a file (broken link or device)"
  if not names:
    raise ValueError(
      f"No images in {root} (data.path) or below: looked for"
      f" {' '.join(EXTENSIONS)}; found {others} other files."
    )
  names.sort()
  labels = {name: name.partition("/")[0] for name in names if "/" in name}

  def read(position: int) -> bytes:
    return (root / names[position]).read_bytes()

  return Source("folder", names, read, skipped, labels=labels)


def _relative(path: Path, root: Path) -> str:
  return path.relative_to(root).as_posix()
