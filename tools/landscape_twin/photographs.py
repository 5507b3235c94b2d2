"""Batches of random crops of photographs with random holes, made in a thread."""

import pathlib
import queue
import threading
from collections.abc import Sequence

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import masks

KINDS = ("center", "random_block", "random_region", "brush")
_SHARES = (0.15, 0.3, 0.25, 0.3)  # of the kinds
_SIDE = 576  # pixels; larger photographs are reduced to this shorter side
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_CHUNK = 250  # masks that are drawn at once


def load(folders: Sequence[str], smallest: int) -> list[np.ndarray]:
  """Returns photographs `[H, W, 3]` uint8 whose sides are at least `smallest`.

  Raises:
    ValueError: there are none.
  """
  images = []
  for folder in folders:
    for path in sorted(pathlib.Path(folder).rglob("*")):
      if path.suffix.lower() not in _SUFFIXES:
        continue
      image = cv2.imread(str(path), cv2.IMREAD_COLOR)
      if image is None or min(image.shape[:2]) < smallest:
        continue
      scale = _SIDE / min(image.shape[:2])
      if scale < 1:
        image = cv2.resize(
          image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
      images.append(np.ascontiguousarray(image[..., ::-1]))
  if not images:
    raise ValueError(f"No image of at least {smallest} pixels in {', '.join(folders)}.")
  return images


def resize(image: np.ndarray, size: int) -> np.ndarray:
  """Returns a square image `[size, size, 3]`."""
  if len(image) == size:
    return image
  way = cv2.INTER_AREA if len(image) > size else cv2.INTER_CUBIC
  return cv2.resize(image, (size, size), interpolation=way)


def centre(image: np.ndarray, size: int) -> np.ndarray:
  """Returns the largest central square, resized."""
  h, w = image.shape[:2]
  side = min(h, w)
  y, x = (h - side) // 2, (w - side) // 2
  return resize(image[y : y + side, x : x + side], size)


def draw_holes(kind: str, size: int, count: int, seed: int) -> np.ndarray:
  """Returns masks of one kind, `[count, size, size]` uint8, 1 = hole."""
  sample, key = masks.make_sampler(kind, size), jax.random.key(seed)
  draw = jax.jit(lambda index: masks.for_examples(sample, key, index)[..., 0])
  chunks = [
    np.asarray(draw(jnp.arange(start, start + _CHUNK)) > 0.5).astype(np.uint8)
    for start in range(0, count, _CHUNK)
  ]
  return np.concatenate(chunks)[:count]


class Feed:
  """Endless batches: images `[B, S, S, 3]` uint8 and masks `[B, S, S]` uint8.

  Args:
    folders: of photographs.
    size: side of the crops in pixels, after scaling.
    batch: images of a batch.
    seed: of the crops and holes.
    smallest: least side of a crop in pixels of the photograph, before scaling.
    holes: masks that are drawn of each kind.
  """

  def __init__(
    self,
    folders: Sequence[str],
    size: int,
    batch: int,
    seed: int,
    smallest: int = 128,
    holes: int = 1000,
  ):
    self.images = load(folders, smallest)
    self._size, self._batch, self._smallest = size, batch, smallest
    self._holes = [draw_holes(kind, size, holes, seed=size) for kind in KINDS]
    self._random = np.random.default_rng(seed)
    self._queue: queue.Queue = queue.Queue(6)
    threading.Thread(target=self._run, daemon=True).start()

  def get(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the next batch.

    Raises:
      RuntimeError: making it failed.
    """
    item = self._queue.get()
    if isinstance(item, Exception):
      raise RuntimeError("A batch could not be made.") from item
    return item

  def _run(self):
    try:
      while True:
        crops = [self._crop() for _ in range(self._batch)]
        holes = [self._hole() for _ in range(self._batch)]
        self._queue.put((np.stack(crops), np.stack(holes)))
    except Exception as error:
      self._queue.put(error)

  def _crop(self) -> np.ndarray:
    """Returns a square of random place and scale, flipped at random.

    Its side is the photograph's shorter side with probability 0.15, and otherwise
    uniform between `smallest` and that.
    """
    random = self._random
    image = self.images[random.integers(len(self.images))]
    h, w = image.shape[:2]
    full = min(h, w)
    side = full
    if random.random() >= 0.15:
      side = int(random.uniform(min(self._smallest, full), full))
      side = max(side, min(self._size, full))
    y, x = random.integers(h - side + 1), random.integers(w - side + 1)
    crop = resize(image[y : y + side, x : x + side], self._size)
    return crop[:, ::-1] if random.random() < 0.5 else crop

  def _hole(self) -> np.ndarray:
    """Returns a mask, flipped, transposed and, one time in two, rolled at random."""
    random = self._random
    pool = self._holes[random.choice(len(KINDS), p=_SHARES)]
    mask = pool[random.integers(len(pool))]
    if random.random() < 0.5:
      mask = np.roll(mask, random.integers(self._size, size=2), (0, 1))
    mask = mask[:: random.choice((1, -1)), :: random.choice((1, -1))]
    return mask.T if random.random() < 0.5 else mask
