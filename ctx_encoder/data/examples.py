"""The images of one split: names, ids and access to the pixels."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ctx_encoder.data.decode import BadImage, decode, dimensions
from ctx_encoder.data.paths import printable


class MissingData(FileNotFoundError):
  """There is no data set at the given path; the message names path and remedy."""


class TooManyBadImages(ValueError):
  """The share of unusable images is above data.max_bad_share."""


class Skipped(dict[str, str]):
  """{name: reason} of the unusable images, up to a maximum share.

  Args:
    found: unusable images that are known from the start.
    total: number of all images, usable or not.
    max_share: largest share of `total` that may be unusable, in [0, 1].
  Raises:
    TooManyBadImages: more than that share.
  """

  def __init__(self, found: Mapping[str, str], total: int, max_share: float = 1.0):
    super().__init__(found)
    self.total = total
    self.max_share = max_share
    self._check()

  def add(self, name: str, reason: str) -> None:
    """Records an unusable image; raises TooManyBadImages above the maximum share."""
    self[name] = reason
    self._check()

  def _check(self) -> None:
    if len(self) > self.max_share * self.total:
      last = list(self)[-1]
      raise TooManyBadImages(
        f"{len(self)} of {self.total} images cannot be used, more than"
        f" data.max_bad_share={self.max_share:g} allows: repair or remove them, or"
        f" raise it. The last one is {printable(last)}: {self[last]}."
      )


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
  """Images of one split, sorted by name.

  Attributes:
    names: `N` names, sorted.
    ids: int32 `[N]`, a stable 31-bit hash of each name.
    image_size: side `S` of the decoded images, pixels.
    images: uint8 `[N, S, S, 3]` if all are kept in memory, else None.
    read: position to the encoded image, or its pixels.
    max_pixels: images with more pixels are refused.
    skipped: images found unusable so far; one object for both splits.
    loader: tf or pillow, which decodes batches in the background.
  """

  names: tuple[str, ...]
  ids: np.ndarray
  image_size: int
  images: np.ndarray | None
  read: Callable[[int], bytes | np.ndarray]
  max_pixels: int
  skipped: Skipped
  loader: str

  def __len__(self) -> int:
    return len(self.names)

  @property
  def nbytes(self) -> int:
    """Size of all decoded images in bytes, whether they are in memory or not."""
    return len(self) * self.image_size**2 * 3

  @property
  def how(self) -> str:
    """What decodes the images at every epoch, or "" if they are in memory."""
    if self.images is not None:
      return ""
    names = {"tf": "tf.data", "pillow": "threads with Pillow"}
    return f", decoded every epoch by {names[self.loader]}"

  def gather(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns uint8 `[K, S, S, 3]`, the images at `K` positions."""
    return self.fetch(indices)[0]

  def fetch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns images; undecodable ones are replaced by the next decodable ones.

    The replacement is the next name in order; the first name follows the last. So
    batches stay full, and the other images keep their places. Files may also vanish or
    change during a run: an image that cannot be decoded is recorded in `skipped` and
    not tried again.

    Args:
      indices: `K` positions.
    Returns:
      uint8 `[K, S, S, 3]`, and int32 `[K]`, the positions of the images returned.
    Raises:
      TooManyBadImages: more unusable images than `skipped` allows.
      ValueError: no image of the split can be decoded.
    """
    if self.images is not None:
      positions = np.asarray(indices, np.int32)
      return self.images[positions], positions
    images = np.zeros((len(indices), self.image_size, self.image_size, 3), np.uint8)
    positions = np.zeros(len(indices), np.int32)
    for row, index in enumerate(indices):
      images[row], positions[row] = self.fetch_one(int(index))
    return images, positions

  def fetch_one(self, index: int) -> tuple[np.ndarray, int]:
    """Returns one image like `fetch`: uint8 `[S, S, 3]` and its position."""
    if self.images is not None:
      return self.images[index], index
    for position in (*range(index, len(self)), *range(index)):
      image = self.try_decode(position)
      if image is not None:
        return image, position
    raise ValueError(f"None of the {len(self)} images of this split can be decoded.")

  def try_decode(self, index: int) -> np.ndarray | None:
    """Returns uint8 `[S, S, 3]`, or None; the reason is recorded in `skipped`."""
    name = self.names[index]
    if name in self.skipped:
      return None
    try:
      return decode(self.read(index), self.image_size, self.max_pixels)
    except BadImage as error:
      self.skipped.add(name, str(error))
    except OSError as error:
      self.skipped.add(name, f"cannot be read: {error.strerror or error}")
    return None

  def dimensions(self, index: int) -> tuple[int, int] | None:
    """Returns the original's (width, height) from its header, None if unreadable."""
    try:
      return dimensions(self.read(index))
    except (BadImage, OSError):
      return None

  def keep(
    self, positions: Sequence[int] | np.ndarray, images: np.ndarray | None = None
  ) -> "Examples":
    """Returns the examples at `positions`; `images` are their pixels, if decoded."""
    kept = [int(position) for position in positions]
    return dataclasses.replace(
      self,
      names=tuple(self.names[position] for position in kept),
      ids=self.ids[kept],
      images=images,
      read=lambda index: self.read(kept[index]),
    )

  def mean_color(self, count: int = 500) -> list[float]:
    """Returns the mean colour `[3]`, in [0, 255], of `count` images spread evenly."""
    positions = np.unique(np.linspace(0, len(self) - 1, count).astype(int))
    return self.gather(positions).mean(axis=(0, 1, 2), dtype=np.float64).tolist()
