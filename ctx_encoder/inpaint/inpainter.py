"""Filling holes in pictures of any size with a network that takes small squares."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

from ctx_encoder.inpaint import blending, pictures, plan, regions, tiles
from ctx_encoder.training import trained
from ctx_encoder.training.inference import make_complete

# Each is compiled once; what is left over is padded to the next.
_BATCH_SIZES = (1, 4, 16)


class Inpainter:
  """Fills holes: `completed = inpainter(image, mask)`.

      inpainter = Inpainter.from_workdir("runs/quickstart")
      completed = inpainter(image, mask)                   # uint8 [H, W, 3], [H, W]
      completed = inpainter(images, masks, blend="none")  # lists: one call for all

  Attributes:
    name: of the run's configuration.
    image_size: side of the squares that the network takes, in pixels.
  """

  def __init__(
    self,
    complete: Callable[..., Any],
    image_size: int,
    *,
    reach: float = 1.0,
    name: str = "",
  ):
    """Wraps any network.

    Args:
      complete: (uint8 `[B, S, S, 3]`, uint8 `[B, S, S, 1]` with 1 = hole, `[B]` PRNG
        keys) to uint8 `[B, S, S, 3]`, see `inference.make_complete`.
      image_size: S.
      reach: share of the side, in the centre, that the network paints.
      name: to be shown.
    """
    self.name = name
    self.image_size = image_size
    self._complete = complete
    self._reach = reach

  @classmethod
  def from_workdir(
    cls, workdir: str | os.PathLike, *, step: int | None = None
  ) -> "Inpainter":
    """Returns the best network of a run, or that of a given step.

    Raises: as `trained.load` does.
    """
    return cls.from_trained(trained.load(os.fspath(workdir), step=step))

  @classmethod
  def from_trained(cls, model: trained.Trained) -> "Inpainter":
    """Returns a network that was read with `trained.load`."""
    task = model.task
    complete = make_complete(model.generator, model.variables, task)
    return cls(
      complete,
      task.image_size,
      reach=task.output_size / task.image_size,
      name=model.name,
    )

  def __call__(
    self,
    image: Any,
    mask: Any,
    *,
    strategy: str = "auto",
    blend: str = "poisson",
    seed: int = 0,
  ) -> Any:
    """Fills the holes of a picture, or of a list of them.

    Args:
      image: uint8 `[H, W, 3]`, a PIL image, or the path or bytes of a file, of any size
        and aspect; or a list of these; or uint8 `[B, H, W, 3]`.
      mask: bool `[H, W]`, true = hole (or 0 and 1, or brightness: brighter than half =
        hole), a PIL image or a file; a list of them for a list of pictures.
      strategy: "crops" shows the network a square around each hole, with as much
        context as hole, and scales what it paints to the hole's size. "tiles" fills a
        hole at full resolution, from the border inwards, with overlapping squares.
        "whole" shows it the whole picture. "auto" takes crops, and tiles for holes that
        are long but thin, such as scratches and writing.
      blend: how what is painted meets what is known, see `blending.blend`. With "none"
        and "poisson" known pixels come back as they were, byte for byte.
      seed: of the noise, for networks that take some.
    Returns:
      What came in, completed: an array for arrays and files, a PIL image for one, a
      list for lists.
    Raises:
      ValueError: strategy or blend are unknown; image and mask are of different sizes;
        there is no hole, or nothing else; a file is not a picture. For lists the
        message begins with the number of the picture.
    """
    if isinstance(image, list | tuple):
      arrays, kinds = list(image), [isinstance(one, Image.Image) for one in image]
    elif isinstance(image, np.ndarray) and image.ndim == 4:
      arrays, kinds = list(image), [False] * len(image)
    else:
      pair = _checked(image, mask)
      (completed,) = self.complete([pair], strategy=strategy, blend=blend, seed=seed)
      return Image.fromarray(completed) if isinstance(image, Image.Image) else completed
    if len(arrays) != len(mask):
      raise ValueError(f"There are {len(arrays)} images and {len(mask)} masks.")
    pairs = []
    for number, (one, its_mask) in enumerate(zip(arrays, mask, strict=True)):
      try:
        pairs.append(_checked(one, its_mask))
      except ValueError as error:
        raise ValueError(f"Image {number}: {error}") from error
    results = list(self.complete(pairs, strategy=strategy, blend=blend, seed=seed))
    if isinstance(image, np.ndarray):
      return np.stack(results)
    return [
      Image.fromarray(result) if pil else result
      for result, pil in zip(results, kinds, strict=True)
    ]

  def complete(
    self,
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    strategy: str = "auto",
    blend: str = "poisson",
    seed: int = 0,
  ) -> Iterator[np.ndarray]:
    """Yields completed pictures, uint8 `[H, W, 3]`, of (uint8 image, bool mask).

    Each is taken when it is its turn, so that a long list need not fit into memory; the
    holes of one picture share the network's batches, and small pictures with one hole
    each share them among themselves. Arguments as for `__call__`.
    """
    _check_choice("strategy", strategy, plan.STRATEGIES)
    _check_choice("blend", blend, blending.BLENDS)
    waiting: list[tuple[np.ndarray, np.ndarray, list[plan.Job]]] = []
    for image, mask in pairs:
      waiting.append(
        (image, mask, plan.jobs(mask, self.image_size, self._reach, strategy, blend))
      )
      # Enough for a full batch: more would only take memory.
      if sum(len(jobs) for _, _, jobs in waiting) >= _BATCH_SIZES[-1] or (
        sum(image.size for image, _, _ in waiting) > 2**24
      ):
        yield from self._finish(waiting, blend, seed)
        waiting = []
    yield from self._finish(waiting, blend, seed)

  def _finish(self, waiting, blend: str, seed: int) -> Iterator[np.ndarray]:
    """Yields the completed pictures of those that wait, in order."""
    squares = [
      regions.shrunk(regions.cut(image, job.box), job.asked, self.image_size)
      for image, _, jobs in waiting
      for job in jobs
      if job.strategy == "crops"
    ]
    painted = iter(self._run(squares, seed))
    for image, mask, jobs in waiting:
      completed = image.copy()
      for job in jobs:
        if job.strategy == "crops":
          full = regions.enlarged(next(painted), job.box.height, job.box.width)
        else:
          full = tiles.paint(
            regions.cut(image, job.box),
            job.asked,
            lambda parts, holes: np.stack(
              self._run(list(zip(parts, holes, strict=True)), seed)
            ),
            self.image_size,
            self._reach,
          )
        _paste(completed, image, mask, full, job, blend)
      yield completed

  def _run(
    self, squares: Sequence[tuple[np.ndarray, np.ndarray]], seed: int
  ) -> list[np.ndarray]:
    """Returns what the network makes of (uint8 `[S, S, 3]`, bool `[S, S]`)."""
    results: list[np.ndarray] = []
    while len(results) < len(squares):
      rest = squares[len(results) : len(results) + _BATCH_SIZES[-1]]
      size = next(size for size in _BATCH_SIZES if size >= len(rest))
      padded = [*rest, *[rest[-1]] * (size - len(rest))]
      images = np.stack([image for image, _ in padded])
      holes = np.stack([hole for _, hole in padded]).astype(np.uint8)[..., None]
      first = np.arange(len(results), len(results) + size)
      keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), first)
      results.extend(np.asarray(self._complete(images, holes, keys))[: len(rest)])
    return results


def _paste(completed, image, mask, full, job: plan.Job, blend: str) -> None:
  """Blends what was painted of a box into the completed picture, in place."""
  inside, box = job.inside, job.box
  painted = regions.cut(full, inside.seen_from(box))
  original, known = regions.cut(image, inside), ~regions.cut(mask, inside)
  filled = blending.blend(original, painted, job.own, known, how=blend, ring=job.ring)
  fresh = job.own | (known & (filled != original).any(2))
  rows = slice(inside.top, inside.top + inside.height)
  columns = slice(inside.left, inside.left + inside.width)
  completed[rows, columns][fresh] = filled[fresh]


def _checked(image: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
  """Returns a picture and its mask as arrays; raises ValueError if they do not fit."""
  image, mask = pictures.as_image(image), pictures.as_mask(mask)
  if image.shape[:2] != mask.shape:
    raise ValueError(
      f"the image is {image.shape[1]}x{image.shape[0]} pixels and the mask"
      f" {mask.shape[1]}x{mask.shape[0]}; they have to be of one size."
    )
  if not mask.any():
    raise ValueError("the mask has no hole: it is dark all over (brighter = hole).")
  if mask.all():
    raise ValueError("the mask hides everything (brighter = hole); is it inverted?")
  return image, mask


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
  if value not in choices:
    raise ValueError(f"There is no {name} {value!r}; there are {', '.join(choices)}.")
