"""Fills holes in pictures of any size with a network for small squares."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from PIL import Image

from ctx_encoder.inpaint import (
  blending,
  formats,
  pictures,
  plan,
  regions,
  shipped,
  texture,
  tiles,
)
from ctx_encoder.training.inference import make_complete

if TYPE_CHECKING:
  from ctx_encoder.training import trained

# Each size is compiled once; batches are padded to the next size.
_BATCH_SIZES = (1, 8)

# Called between batches of the network with the share of the holes' pixels that is
# filled, in [0, 1]. An exception that it raises ends the call.
Progress = Callable[[float], object]


class Inpainter:
  """Fills holes: `completed = inpainter(image, mask)`.

      inpainter = Inpainter.shipped()                      # trained on landscapes
      inpainter = Inpainter.from_workdir("runs/quickstart")
      completed = inpainter(image, mask)                   # uint8 [H, W, 3], [H, W]
      completed = inpainter(images, masks, blend="none")  # lists

  Attributes:
    name: name of the run's configuration.
    image_size: side of the network's input, in pixels.
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
        keys) to uint8 `[B, S, S, 3]`, as `inference.make_complete` returns.
      image_size: S, in pixels.
      reach: share of the side, in the centre, that the network generates.
      name: name to display.
    """
    self.name = name
    self.image_size = image_size
    self._complete = complete
    self._reach = reach

  @classmethod
  def shipped(cls, image_size: int = shipped.SIDE) -> "Inpainter":
    """Loads the network that comes with the package, see `shipped.card`.

    Args:
      image_size: side of its input, a multiple of 8; holes are scaled to it.
    """
    return cls(shipped.complete(image_size), image_size, name=shipped.NAME)

  @classmethod
  def from_workdir(
    cls, workdir: str | os.PathLike, *, step: int | None = None
  ) -> "Inpainter":
    """Loads the best network of a run, or that of a given step.

    Raises: as `trained.load`.
    """
    from ctx_encoder.training import trained  # loads Orbax, which takes seconds

    return cls.from_trained(trained.load(os.fspath(workdir), step=step))

  @classmethod
  def from_trained(cls, model: "trained.Trained") -> "Inpainter":
    """Wraps a generator loaded by `trained.load`."""
    view = model.view
    complete = make_complete(model.generator, model.variables, view)
    reach = view.output_size / view.image_size
    return cls(complete, view.image_size, reach=reach, name=model.name)

  def __call__(
    self,
    image: Any,
    mask: Any,
    *,
    strategy: str = "auto",
    blend: str = "poisson",
    seed: int = 0,
    progress: Progress | None = None,
  ) -> Any:
    """Fills the holes of one or several pictures.

    Args:
      image: uint8 `[H, W, 3]` of NumPy, JAX or another library, a PIL image, or the
        path or bytes of a file, of any size and aspect; or a list of these; or uint8
        `[B, H, W, 3]`.
      mask: bool `[H, W]`, true = hole, or values in [0, 1] or up to 255, where values
        above half of the range are the hole; or a PIL image, a file or an array with
        channels, see `read_mask`. For several pictures, a list of masks.
      strategy: "crops" completes a square around each hole, with as much context as
        hole, scaled to the network's size. "texture" adds detail of the picture to
        that, see `texture.paint`. "tiles" fills a hole at full resolution with
        overlapping squares, from the border inwards. "whole" scales the whole picture.
        "auto" uses tiles for long, thin holes such as scratches and writing, texture
        for other holes that are larger than half of the network's input, else crops.
      blend: "poisson", "feather" or "none", see `blending.blend`. "poisson" and "none"
        return known pixels unchanged.
      seed: for networks with noise.
      progress: called between batches with the share that is filled, in [0, 1]; an
        exception that it raises ends the call.
    Returns:
      The completed picture: uint8 `[H, W, 3]`, or for a PIL image one of its mode, see
      `formats.like`. A list for a list, uint8 `[B, H, W, 3]` for a batch.
    Raises:
      ValueError: strategy or blend is unknown; image and mask differ in size; the mask
        is empty or covers everything; a file is not a picture. For several pictures the
        message begins with the picture's number.
    """
    options: Any = {"strategy": strategy, "blend": blend, "seed": seed}
    options["progress"] = progress
    batched = getattr(image, "ndim", 0) == 4
    if not batched and not isinstance(image, list | tuple):
      (completed,) = self.complete([_checked(image, mask)], **options)
      return _as_given(image, completed)
    if len(image) != len(mask):
      raise ValueError(f"There are {len(image)} images and {len(mask)} masks.")
    pairs = []
    for number, pair in enumerate(zip(image, mask, strict=True)):
      try:
        pairs.append(_checked(*pair))
      except ValueError as error:
        raise ValueError(f"Image {number}: {error}") from error
    results = list(self.complete(pairs, **options))
    if batched:
      return np.stack(results)
    return [_as_given(*pair) for pair in zip(image, results, strict=True)]

  def complete(
    self,
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    strategy: str = "auto",
    blend: str = "poisson",
    seed: int = 0,
    progress: Progress | None = None,
  ) -> Iterator[np.ndarray]:
    """Yields the completed pictures, uint8 `[H, W, 3]`, of (uint8 image, bool mask).

    Pairs are read as needed, so that a long iterable need not fit into memory. Holes of
    the same and of consecutive pictures share the network's batches. Other arguments
    and errors are those of `__call__`.
    """
    _check_choice("strategy", strategy, plan.STRATEGIES)
    _check_choice("blend", blend, blending.BLENDS)
    waiting: list[tuple[np.ndarray, np.ndarray, list[plan.Job]]] = []
    for image, mask in pairs:
      waiting.append(
        (image, mask, plan.jobs(mask, self.image_size, self._reach, strategy, blend))
      )
      # Enough for a full batch, or much memory in use.
      if sum(len(jobs) for _, _, jobs in waiting) >= _BATCH_SIZES[-1] or (
        sum(image.size for image, _, _ in waiting) > 2**24
      ):
        yield from self._finish(waiting, blend, seed, progress)
        waiting = []
    yield from self._finish(waiting, blend, seed, progress)

  def _finish(self, waiting, blend: str, seed: int, progress) -> Iterator[np.ndarray]:
    """Yields the completed pictures of (image, mask, jobs), in order."""
    counter = _Counter(waiting, progress)
    crops = [
      (image, job)
      for image, _, jobs in waiting
      for job in jobs
      if job.strategy != "tiles"
    ]
    squares = [
      regions.to_network(regions.cut(image, job.box), job.hidden, self.image_size)
      for image, job in crops
    ]
    areas = [int(np.count_nonzero(job.hole)) for _, job in crops]
    outputs = iter(self._run(squares, seed, lambda n: counter.add(sum(areas[n]))))
    for image, mask, jobs in waiting:
      completed = image.copy()
      for job in jobs:
        crop = regions.cut(image, job.box)
        if job.strategy == "tiles":
          full = self._tiled(crop, job, seed, counter)
        else:
          full = _enlarged(next(outputs), crop, job)
        _paste(completed, image, mask, full, job, blend)
      yield completed

  def _tiled(self, crop, job: plan.Job, seed: int, counter: "_Counter") -> np.ndarray:
    """Returns a crop completed at full resolution."""
    hidden, hole = np.count_nonzero(job.hidden), np.count_nonzero(job.hole)

    def network(parts, holes, pixels):
      share = hole * pixels / hidden / len(parts)
      squares = list(zip(parts, holes, strict=True))
      return self._run(squares, seed, lambda n: counter.add(share * len(squares[n])))

    return tiles.paint(crop, job.hidden, network, self.image_size, self._reach)

  def _run(
    self,
    squares: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
    done: Callable[[slice], None],
  ) -> list[np.ndarray]:
    """Returns the network's outputs for (uint8 `[S, S, 3]`, bool `[S, S]`).

    `done` gets the range of squares of each batch.
    """
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
      done(slice(len(results) - len(rest), len(results)))
    return results


class _Counter:
  """Counts filled pixels and reports their share of all holes."""

  def __init__(self, waiting, progress: Progress | None):
    holes = [job.hole for _, _, jobs in waiting for job in jobs]
    self._total = sum(map(np.count_nonzero, holes))
    self._filled = 0.0
    self._progress = progress

  def add(self, pixels: float) -> None:
    self._filled += pixels
    if self._progress:
      self._progress(min(1.0, float(self._filled / self._total)))


def _enlarged(output: np.ndarray, crop: np.ndarray, job: plan.Job) -> np.ndarray:
  """Returns the network's output at the size of the crop."""
  full = None
  if job.strategy == "texture" and job.box.longest > len(output):
    full = texture.paint(crop, job.hidden, output)
  if full is None:
    full = regions.from_network(output, job.box.height, job.box.width)
  return full


def _paste(completed, image, mask, full, job: plan.Job, blend: str) -> None:
  """Blends a generated crop into the completed picture, in place."""
  inside = job.inside
  generated = regions.cut(full, inside.relative_to(job.box))
  original, known = regions.cut(image, inside), ~regions.cut(mask, inside)
  filled = blending.blend(
    original, generated, job.hole, known, how=blend, ring=job.ring
  )
  changed = job.hole | (known & blending.changed(original, filled))
  rows = slice(inside.top, inside.top + inside.height)
  columns = slice(inside.left, inside.left + inside.width)
  completed[rows, columns][changed] = filled[changed]


def _as_given(image: Any, completed: np.ndarray) -> Any:
  """Returns a PIL image of the same mode for a PIL image, else the array."""
  is_pil = isinstance(image, Image.Image)
  return formats.like(image, completed) if is_pil else completed


def _checked(image: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
  """Converts a picture and its mask to arrays; raises ValueError if unusable."""
  image, mask = pictures.as_image(image), pictures.as_mask(mask)
  if image.shape[:2] != mask.shape:
    raise ValueError(
      f"the image is {image.shape[1]}x{image.shape[0]} pixels and the mask"
      f" {mask.shape[1]}x{mask.shape[0]}; they must have the same size."
    )
  if not mask.any():
    raise ValueError("the mask has no hole: it has no bright pixels (bright = hole).")
  if mask.all():
    raise ValueError("the mask hides everything (bright = hole); is it inverted?")
  return image, mask


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
  if value not in choices:
    raise ValueError(f"There is no {name} {value!r}; there are {', '.join(choices)}.")
