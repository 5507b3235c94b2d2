"""Loads the training and validation images that a configuration section describes."""

import copy
import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ctx_encoder.data.batches import decode_all
from ctx_encoder.data.examples import Examples, Skipped
from ctx_encoder.data.paths import printable
from ctx_encoder.data.sources import Source, open_source, source_kind
from ctx_encoder.data.split import example_ids, subset, validation_mask
from ctx_encoder.data.streams import resolve_loader


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
  """Where the images come from, and how many are used.

  Attributes:
    source: kind of source: samples, folder, tfrecord or tfds.
    path: its path or TFDS name, or "".
    found: number of images that the source lists, usable or not.
    used: number of images in both splits; with cache=none, unusable ones included.
    skipped: the unusable images; grows while images are decoded.
    notice: a message for the user about the source, or "".
  """

  source: str
  path: str
  found: int
  used: int
  skipped: Skipped
  notice: str

  @property
  def where(self) -> str:
    """The path, or "the embedded photographs" or "arrays"."""
    return "the embedded photographs" if self.source == "samples" else self.path

  def skipped_line(self, show: int = 3) -> str:
    """Returns a line with the number and the first names of skipped images, or ""."""
    if not self.skipped:
      return ""
    items = [f"{name} ({reason})" for name, reason in list(self.skipped.items())[:show]]
    rest = len(self.skipped) - len(items)
    line = f"Skipped {len(self.skipped)}: {', '.join(items)}" + (
      f" and {rest} more." if rest else "."
    )
    return printable(line)


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
  """The examples of both splits.

  Attributes:
    train, validation: the two splits.
    summary: where they come from, and how many are used.
    labels: {name: class}, see `Source`.
  """

  train: Examples
  validation: Examples
  summary: Summary
  labels: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Processes:
  """Several processes that load the same data set together.

  Attributes:
    index: index of this process.
    count: number of processes.
    gather: stacks the arrays of all processes, of one shape, to `[count, ...]`.
  """

  index: int
  count: int
  gather: Callable[[np.ndarray], np.ndarray]


def load(
  settings: Any, *, everything: bool = False, processes: Processes | None = None
) -> Data:
  """Lists the images of a source, splits them, and decodes them if they are cached.

  Args:
    settings: the section `data` of a configuration, or any object with its fields.
      Images are loaded at load_size, or image_size if that is 0.
    everything: put all images into `train` and none into `validation`, those of the
      embedded photographs' own validation split included. With validation_fraction=0
      that validation split is left out instead.
    processes: processes that share the decoding of cached images; each decodes a part
      and gathers the rest. None = a single process.
  Returns:
    Data with both splits. With cache=none, unusable images are found only when read.
  Raises:
    MissingData: there is nothing at `settings.path`.
    ValueError: a split is empty, too many images are unusable, or a setting is wrong.
    ModuleNotFoundError: the source needs a package that is not installed.
  """
  _check(settings)
  fraction = 0.0 if everything else settings.validation_fraction
  found = open_source(
    settings.source,
    settings.path,
    split=settings.split,
    data_dir=settings.data_dir,
    download=settings.download,
  )
  chosen = subset(found.names, settings.max_images)
  held_out = found.validation
  if everything:
    held_out = np.zeros(len(found.names), bool)
  elif held_out is None:
    held_out = validation_mask(found.names, fraction)
  in_memory = _fits_in_memory(settings, len(chosen), processes)
  everyone = _examples(settings, found, chosen, in_memory)
  held_out = held_out[chosen]
  train = everyone.keep(np.flatnonzero(~held_out))
  validation = everyone.keep(np.flatnonzero(held_out & (fraction > 0)))
  _check_splits(train, validation, fraction)
  if in_memory:
    train, validation = (_in_memory(part, processes) for part in (train, validation))
    _check_splits(train, validation, fraction)
  summary = Summary(
    source=found.kind,
    path=settings.path,
    found=len(found.names) + len(found.skipped),
    used=len(train) + len(validation),
    skipped=everyone.skipped,
    notice=found.notice,
  )
  return Data(train, validation, summary, found.labels)


def from_arrays(train: np.ndarray, validation: np.ndarray | None = None) -> Data:
  """Returns images that are in memory already, for `training.fit`.

  Args:
    train: uint8 `[N, S, S, 3]`, S = data.image_size, or data.load_size if that is set.
    validation: uint8 `[M, S, S, 3]`; None = no validation.

  Raises:
    ValueError: an array has another type or shape, or `train` is empty.
  """
  if validation is None:
    validation = train[:0]
  skipped = Skipped({}, len(train) + len(validation))

  def examples(split: str, images: np.ndarray) -> Examples:
    images = np.asarray(images)
    side = np.shape(train)[1:2]
    square = images.ndim == 4 and images.shape[1:] == (*side, *side, 3)
    if images.dtype != np.uint8 or not square:
      raise ValueError(
        f"The {split} images must be uint8 [N, S, S, 3], not {images.dtype}"
        f" {list(images.shape)}."
      )
    names = tuple(f"{split}/{number:07d}" for number in range(len(images)))
    return Examples(
      names=names,
      ids=example_ids(names),
      image_size=images.shape[1],
      images=images,
      read=lambda index: images[index],
      max_pixels=images[0].size if len(images) else 0,
      skipped=skipped,
      loader="pillow",
    )

  if not len(train):
    raise ValueError("There are no training images.")
  splits = examples("train", train), examples("validation", validation)
  found = len(train) + len(validation)
  return Data(*splits, Summary("arrays", "arrays", found, found, skipped, ""), {})


def evaluation_settings(
  settings: Any, path: str | None = None, split: str | None = None, **changes: Any
) -> tuple[Any, bool]:
  """Returns settings for an evaluation on a run's own images or on others.

  Args:
    settings: the section `data` of the run; it is not changed.
    path: folder of images, of TFRecords, or TFDS name; None = the run's own images. A
      given path never means the embedded photographs, whatever the run was trained on.
    split: TFDS split to read; None = the run's own for its own data set, else "train".
    changes: other fields to set.
  Returns:
    A copy of `settings` that downloads nothing, accepts any share of unusable images
    and takes any loader; and whether it reads the run's own data set and split.
  Raises:
    MissingData: there is nothing at `path`.
    ValueError: `split` is given for another source than TFDS.
  """
  found = copy.deepcopy(settings)
  same_path = path is None or _same_place(settings, path)
  own = same_path and split in (None, settings.split)
  if not same_path:
    found.source = "folder" if not path else "auto"
    found.path = path or ""
    found.split = "train"
  if not own:
    found.max_images = 0
  if split is not None:
    if source_kind(found.source, found.path) != "tfds":
      raise ValueError(
        f"split={split} applies to TFDS data sets only, and"
        f" {found.path or 'the embedded photographs'} is none."
      )
    found.split = split
  found.download, found.max_bad_share, found.loader = False, 1.0, "auto"
  for name, value in changes.items():
    setattr(found, name, value)
  return found, own


def _same_place(settings: Any, path: str) -> bool:
  """Returns whether a path means the data set that the settings read."""
  if settings.source == "samples" or not settings.path:
    return False
  given, own = Path(path).expanduser(), Path(settings.path).expanduser()
  if path and given.exists() and own.exists():
    return given.samefile(own)
  return path == settings.path


def _check(settings: Any) -> None:
  if settings.cache not in ("auto", "memory", "none"):
    raise ValueError(
      f"data.cache must be auto, memory or none, not {settings.cache!r}."
    )
  if settings.image_size < 1:
    raise ValueError(f"data.image_size must be at least 1, not {settings.image_size}.")
  if not 0 <= settings.validation_fraction < 1:
    raise ValueError(
      "data.validation_fraction must be in [0, 1), not"
      f" {settings.validation_fraction:g}."
    )


def _fits_in_memory(settings: Any, count: int, processes: Processes | None) -> bool:
  """Returns whether to cache, in all processes or in none.

  cache=auto does if the decoded images take less than a quarter of the free memory.
  """
  side = settings.load_size or settings.image_size
  small = count * 3 * side**2 < _free_memory() / 4
  if processes is not None:
    small = bool(processes.gather(np.asarray(small)).all())
  return settings.cache == "memory" or (settings.cache == "auto" and small)


def _examples(
  settings: Any, found: Source, chosen: list[int], in_memory: bool
) -> Examples:
  """Returns the chosen images of a source, undecoded."""
  names = tuple(found.names[position] for position in chosen)
  skipped = Skipped(
    found.skipped, len(names) + len(found.skipped), settings.max_bad_share
  )
  # Images that are decoded only once do not need TensorFlow, which loads for seconds.
  once = in_memory or found.kind == "samples"
  loader = "pillow" if settings.loader == "auto" and once else settings.loader
  return Examples(
    names=names,
    ids=example_ids(names),
    image_size=settings.load_size or settings.image_size,
    images=None,
    read=lambda index: found.read(chosen[index]),
    max_pixels=settings.max_pixels,
    skipped=skipped,
    loader=resolve_loader(loader),
  )


def _check_splits(train: Examples, validation: Examples, fraction: float) -> None:
  total = len(train) + len(validation)
  skipped = train.skipped
  reasons = "".join(f" {name}: {skipped[name]}." for name in list(skipped)[:3])
  if not total:
    raise ValueError(f"No image can be used, {len(skipped)} were skipped.{reasons}")
  if not len(train):
    raise ValueError(
      f"All {total} images are in the validation split and none is left to train on:"
      f" add images, or lower data.validation_fraction ({fraction:g}).{reasons}"
    )
  if fraction > 0 and not len(validation):
    raise ValueError(
      f"All {total} images are in the training split and none is left to validate on:"
      f" add images, raise data.validation_fraction ({fraction:g}), or set it to 0 to"
      f" train without validation.{reasons}"
    )


def _in_memory(examples: Examples, processes: Processes | None) -> Examples:
  """Decodes all images once and leaves out undecodable ones."""
  positions = np.arange(len(examples))
  if processes is not None:
    positions = positions[processes.index :: processes.count]
  # As many places in every process, enough for the largest share.
  places = -(-len(examples) // (processes.count if processes else 1))
  side = examples.image_size
  images = np.empty((places, side, side, 3), np.uint8)
  found = np.full(places, -1, np.int32)
  count = 0
  for chunk, where in decode_all(examples.keep(positions)):
    images[count : count + len(chunk)] = chunk
    found[count : count + len(chunk)] = positions[where]
    count += len(chunk)
  if processes is not None and places:
    images = processes.gather(images).reshape(-1, side, side, 3)
    found = processes.gather(found).reshape(-1)
    for missing in np.setdiff1d(np.arange(len(examples)), found):
      name = examples.names[missing]
      if name not in examples.skipped:
        examples.skipped.add(name, "cannot be used, as another process found")
  order = np.argsort(found, kind="stable")[np.count_nonzero(found < 0) :]
  if np.array_equal(order, np.arange(len(order))):  # avoids a copy
    return examples.keep(found[: len(order)], images[: len(order)])
  return examples.keep(found[order], images[order])


def _free_memory() -> float:
  """Returns the free memory of the machine or the container, in bytes."""
  free = []
  try:
    meminfo = Path("/proc/meminfo").read_text()
    free.append(1024 * int(re.findall(r"MemAvailable:\s+(\d+)", meminfo)[0]))
  except (OSError, IndexError):  # not Linux: half of the installed memory
    if hasattr(os, "sysconf"):
      free.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2)
  try:
    cgroup = Path("/sys/fs/cgroup")
    limit = int((cgroup / "memory.max").read_text())
    free.append(limit - int((cgroup / "memory.current").read_text()))
  except (OSError, ValueError):  # no cgroup, or "max"
    pass
  return min(free, default=4 * 2**30)
