"""`load`: from a source to the examples of training and validation."""

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ctx_encoder.data.batches import decode_all
from ctx_encoder.data.decode import MAX_PIXELS
from ctx_encoder.data.examples import Examples, Skipped
from ctx_encoder.data.sources import open_source
from ctx_encoder.data.split import example_ids, subset, validation_mask
from ctx_encoder.data.streams import resolve_loader


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
  """What was found, used and skipped.

  Attributes:
    source: kind of source: samples, folder, tfrecord or tfds.
    path: where it is, or "".
    found: pictures that the source lists, good or bad.
    used: pictures in the two splits; bad ones among them only with cache=none.
    skipped: the bad ones; grows while pictures are decoded.
    notice: what the user should know about the source, or "".
  """

  source: str
  path: str
  found: int
  used: int
  skipped: Skipped
  notice: str

  def skipped_line(self, show: int = 3) -> str:
    """Returns one line with the number of skipped files and the first names, or ""."""
    if not self.skipped:
      return ""
    items = [f"{name} ({reason})" for name, reason in list(self.skipped.items())[:show]]
    rest = len(self.skipped) - len(items)
    line = f"Skipped {len(self.skipped)}: {', '.join(items)}" + (
      f" and {rest} more." if rest else "."
    )
    return line.encode(errors="backslashreplace").decode()


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
  """The examples of both splits, and a summary of where they come from.

  Attributes:
    train, validation: the two splits.
    summary: what was found, used and skipped.
    labels: {name: class}, see `Source`.
  """

  train: Examples
  validation: Examples
  summary: Summary
  labels: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Processes:
  """Several processes that load the same data set at the same time.

  Attributes:
    index: number of this one.
    count: how many there are.
    gather: an array, of the same shape in all, to `[count, ...]`, those of all.
  """

  index: int
  count: int
  gather: Callable[[np.ndarray], np.ndarray]


def load(
  *,
  source: str = "auto",
  path: str = "",
  split: str = "train",
  data_dir: str = "",
  download: bool = False,
  image_size: int = 128,
  validation_fraction: float = 0.2,
  max_images: int = 0,
  max_pixels: int = MAX_PIXELS,
  max_bad_share: float = 1.0,
  cache: str = "auto",
  loader: str = "auto",
  processes: Processes | None = None,
) -> Data:
  """Opens a source, splits it, and decodes it where it is to be kept in memory.

  Args:
    source: samples, folder, tfrecord, tfds, or auto = by what `path` is.
    path: folder of images, of TFRecords, or a TFDS name; "" = embedded photographs.
    split: TFDS split to read.
    data_dir: where TFDS keeps its data sets; "" = its default.
    download: let TFDS download the data set. Nothing else uses the network.
    image_size: side `S` that pictures are brought to, pixels.
    validation_fraction: share kept for validation, by a hash of the name, in [0, 1);
      0 = no validation. The embedded photographs have a split of their own.
    max_images: use at most this many; 0 = all.
    max_pixels: skip pictures with more pixels, without decoding them.
    max_bad_share: end where more than this share of the pictures cannot be used, now or
      whenever they are read, in [0, 1].
    cache: memory = decode all now and keep them, none = decode at every epoch, auto =
      memory where that takes less than a quarter of what is free.
    loader: tf = tf.data, pillow = threads, auto = tf where it is installed and pictures
      are decoded at every epoch.
    processes: those that share the work; each decodes a part of what is kept in memory
      and gets the rest from the others. None = this one is alone.
  Returns:
    Data with both splits. With cache=none a bad picture is only known once it is met.
  Raises:
    FileNotFoundError: there is nothing at `path`.
    ValueError: a split is empty, too many pictures are bad, or an argument is wrong.
    ModuleNotFoundError: the source needs a package that is not installed.
  """
  if cache not in ("auto", "memory", "none"):
    raise ValueError(f"data.cache must be auto, memory or none, not {cache!r}.")
  if image_size < 1:
    raise ValueError(f"data.image_size must be at least 1, not {image_size}.")
  if not 0 <= validation_fraction < 1:
    raise ValueError(
      f"data.validation_fraction must be in [0, 1), not {validation_fraction:g}."
    )
  found = open_source(source, path, split=split, data_dir=data_dir, download=download)
  chosen = subset(found.names, max_images)
  skipped = Skipped(
    found.skipped, len(chosen) + len(found.skipped), max_share=max_bad_share
  )
  held_out = found.validation
  if held_out is None:
    held_out = validation_mask(found.names, validation_fraction)
  small = len(chosen) * 3 * image_size**2 < _free_memory() / 4
  if processes is not None:  # all or none
    small = bool(processes.gather(np.asarray(small)).all())
  in_memory = cache == "memory" or (cache == "auto" and small)
  # What is decoded once is decoded before TensorFlow would be loaded.
  once = in_memory or found.kind == "samples"
  loader = resolve_loader("pillow" if loader == "auto" and once else loader)

  def examples(positions: list[int]) -> Examples:
    names = tuple(found.names[position] for position in positions)
    return Examples(
      names=names,
      ids=example_ids(names),
      image_size=image_size,
      images=None,
      read=lambda index: found.read(positions[index]),
      max_pixels=max_pixels,
      skipped=skipped,
      loader=loader,
    )

  train = examples([i for i in chosen if not held_out[i]])
  validation = examples([i for i in chosen if held_out[i] and validation_fraction > 0])
  _check_splits(train, validation, validation_fraction, skipped)
  if in_memory:
    train, validation = (_in_memory(part, processes) for part in (train, validation))
    _check_splits(train, validation, validation_fraction, skipped)
  summary = Summary(
    source=found.kind,
    path=path,
    found=len(found.names) + len(found.skipped),
    used=len(train) + len(validation),
    skipped=skipped,
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
      max_pixels=MAX_PIXELS,
      skipped=skipped,
      loader="pillow",
    )

  if not len(train):
    raise ValueError("There are no training images.")
  splits = examples("train", train), examples("validation", validation)
  found = len(train) + len(validation)
  return Data(*splits, Summary("arrays", "", found, found, skipped, ""), {})


def _check_splits(
  train: Examples, validation: Examples, fraction: float, skipped: Skipped
) -> None:
  total = len(train) + len(validation)
  reasons = "".join(f" {name}: {skipped[name]}." for name in list(skipped)[:3])
  if not total:
    raise ValueError(f"No picture can be used, {len(skipped)} were skipped.{reasons}")
  if not len(train):
    raise ValueError(
      f"All {total} pictures are in the validation split and none is left to train on:"
      f" add images, or lower data.validation_fraction ({fraction:g}).{reasons}"
    )
  if fraction > 0 and not len(validation):
    raise ValueError(
      f"All {total} pictures are in the training split and none is left to validate on:"
      f" add images, raise data.validation_fraction ({fraction:g}), or set it to 0 to"
      f" train without validation.{reasons}"
    )


def _in_memory(examples: Examples, processes: Processes | None) -> Examples:
  """Decodes everything once and leaves out what cannot be decoded."""
  positions = np.arange(len(examples))
  if processes is not None:
    positions = positions[processes.index :: processes.count]
  # Places for the longest share, so that all processes have as many.
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
  if np.array_equal(order, np.arange(len(order))):  # no copy where none is needed
    return examples.keep(found[: len(order)], images[: len(order)])
  return examples.keep(found[order], images[order])


def _free_memory() -> float:
  """Returns what memory is free, in bytes: the machine's, or the container's."""
  free = []
  try:
    meminfo = Path("/proc/meminfo").read_text()
    free.append(1024 * int(re.findall(r"MemAvailable:\s+(\d+)", meminfo)[0]))
  except (OSError, IndexError):  # not Linux: a half of what is built in
    if hasattr(os, "sysconf"):
      free.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2)
  try:
    cgroup = Path("/sys/fs/cgroup")
    limit = int((cgroup / "memory.max").read_text())
    free.append(limit - int((cgroup / "memory.current").read_text()))
  except (OSError, ValueError):  # no cgroup, or "max"
    pass
  return min(free, default=4 * 2**30)
