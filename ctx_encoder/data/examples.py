"""The examples of one split: names, ids and a way to get their pixels."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ctx_encoder.data.decode import BadImage, decode, dimensions


class TooManyBadImages(ValueError):
  """More pictures than the allowed share cannot be used."""


class Skipped(dict[str, str]):
  """{name: reason} of the pictures that cannot be used, up to a share of all.

  Args:
    found: what is known from the start.
    total: pictures in all.
    max_share: of them that may be skipped, in [0, 1].
  """

  def __init__(self, found: Mapping[str, str], total: int, max_share: float = 1.0):
    super().__init__(found)
    self.total = total
    self.max_share = max_share
    self.check()

  def add(self, name: str, reason: str) -> None:
    """Puts a picture down.

    Raises:
      TooManyBadImages: that was one too many.
    """
    self[name] = reason
    self.check()

  def check(self) -> None:
    if len(self) > self.max_share * self.total:
      last = list(self)[-1]
      raise TooManyBadImages(
        f"{len(self)} of {self.total} pictures cannot be used, more than"
        f" data.max_bad_share={self.max_share:g} allows: mend them, or raise it. The"
        f" last one is {last}: {self[last]}."
      )


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
  """Pictures of one split, in the order of their names.

  Attributes:
    names: `N` names, sorted.
    ids: int32 `[N]`, a stable 31-bit hash of each name.
    image_size: side `S` of the decoded pictures, pixels.
    images: uint8 `[N, S, S, 3]` where all are kept in memory, else None.
    read: position to the encoded picture, or its pixels.
    max_pixels: larger pictures are refused.
    skipped: what could not be decoded so far, shared by the splits.
    loader: tf or pillow, what decodes them in the background.
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
    """Size of all decoded pictures, in bytes, whether they are kept or not."""
    return len(self) * self.image_size**2 * 3

  def gather(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns uint8 `[K, S, S, 3]`, the pictures at `K` positions."""
    return self.fetch(indices)[0]

  def fetch(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gets pictures, and in the place of each bad one the next good one by name.

    So batches stay full, the others stay in their places, and which one is put in is a
    function of what is bad alone; the last name is followed by the first. A file may
    vanish or be spoiled at any time: it is put down in `skipped` when it is next read,
    and not tried again.

    Args:
      indices: `K` positions.
    Returns:
      uint8 `[K, S, S, 3]`, and int32 `[K]`, the positions they really come from.
    Raises:
      TooManyBadImages: more than the share that `skipped` allows.
      ValueError: not one picture can be decoded.
    """
    if self.images is not None:
      positions = np.asarray(indices, np.int32)
      return self.images[positions], positions
    found = [self.fetch_one(int(index)) for index in indices]
    images = np.zeros((len(found), self.image_size, self.image_size, 3), np.uint8)
    for row, (image, _) in enumerate(found):
      images[row] = image
    return images, np.array([position for _, position in found], np.int32)

  def fetch_one(self, index: int) -> tuple[np.ndarray, int]:
    """Gets one picture like `fetch`: uint8 `[S, S, 3]` and its position."""
    if self.images is not None:
      return self.images[index], index
    for position in (*range(index, len(self)), *range(index)):
      image = self.try_decode(position)
      if image is not None:
        return image, position
    raise ValueError(f"None of the {len(self)} pictures of this split can be decoded.")

  def try_decode(self, index: int) -> np.ndarray | None:
    """Returns uint8 `[S, S, 3]`, or None, with the reason put down in `skipped`."""
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
    """Returns (width, height) of the original from its header; None if it has none."""
    try:
      return dimensions(self.read(index))
    except (BadImage, OSError):
      return None

  def keep(
    self, positions: Sequence[int] | np.ndarray, images: np.ndarray | None = None
  ) -> "Examples":
    """Returns the examples at `positions`, whose pictures, if decoded, are `images`."""
    kept = [int(position) for position in positions]
    return dataclasses.replace(
      self,
      names=tuple(self.names[position] for position in kept),
      ids=self.ids[kept],
      images=images,
      read=lambda index: self.read(kept[index]),
    )
