"""What there is to do in a picture: its holes, and what is shown of each."""

import dataclasses
import math

import numpy as np

from ctx_encoder.inpaint import pictures, regions

STRATEGIES = ("auto", "whole", "crops", "tiles")

_RING = 2  # pixels of the network's output around a hole, to blend over


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """A hole, or several, and the part of the picture that the network is shown.

  Attributes:
    strategy: "crops": the network is shown all of the box at once, scaled; or "tiles".
    box: that part; it may reach beyond the picture.
    inside: what of it lies within the picture, `[H, W]`.
    own: bool `[H, W]`, what is to be filled.
    asked: bool, of the box, what is hidden from the network.
    ring: width of what is painted around the hole, to blend over, in pixels.
  """

  strategy: str
  box: regions.Box
  inside: regions.Box
  own: np.ndarray
  asked: np.ndarray
  ring: int


def jobs(
  mask: np.ndarray, size: int, reach: float, strategy: str, blend: str
) -> list[Job]:
  """Returns what there is to do.

  Args:
    mask: bool, true = hole.
    size: side of the squares that the network takes, in pixels.
    reach: share of the side, in the centre, that the network paints.
    strategy: one of `STRATEGIES`.
    blend: see `blending.blend`.
  Raises:
    ValueError: the network does not paint whole pictures.
  """
  if strategy != "whole":
    near = max(1, size // 8)
    return [
      _of_hole(pixels, mask, size, reach, strategy, blend)
      for pixels in regions.holes(mask, near)
    ]
  if reach < 1:
    raise ValueError(
      "this network paints the centre of a square alone; take the strategy crops."
    )
  box = regions.Box(0, 0, *mask.shape)
  ring = _ring(box.longest / size, np.count_nonzero(mask) / box.longest, blend)
  return [Job("crops", box, box, mask, pictures.grown(mask, ring), ring)]


def _of_hole(
  pixels: np.ndarray, mask: np.ndarray, size: int, reach: float, strategy: str, blend
) -> Job:
  """Returns what there is to do about (rows, columns), int `[2, N]`."""
  box = regions.box_of(pixels)
  if strategy == "auto":
    strategy = _choose(box, pixels.shape[1], size)
  scale = 2 * box.longest / size if strategy == "crops" else 1
  ring = _ring(scale, pixels.shape[1] / box.longest, blend)
  wanted = box.enlarged(ring).within(*mask.shape)
  if strategy == "crops":
    # Two pixels off the border of what it paints: scaling looks at neighbours.
    share = reach - 4 / size if reach < 1 else None
    shown = regions.around(wanted, size, mask.shape, share)
  else:
    shown = wanted.enlarged(size).within(*mask.shape)
  inside = shown.within(*mask.shape)
  own = np.zeros((inside.height, inside.width), bool)
  own[pixels[0] - inside.top, pixels[1] - inside.left] = True
  hidden = regions.cut(mask, inside) | pictures.grown(own, ring)
  asked = regions.cut(hidden, shown.seen_from(inside))
  return Job(strategy, shown, inside, own, asked, ring)


def _choose(box: regions.Box, pixels: int, size: int) -> str:
  """Returns the strategy for a hole of so many pixels in a box.

  Scaled down by more than two, a hole that fills little of its box would lose detail
  that tiles, which see enough around it, can keep.
  """
  large = box.longest > size
  thin = pixels < 0.25 * box.height * box.width or min(box.height, box.width) < size / 2
  return "tiles" if large and thin else "crops"


def _ring(scale: float, thickness: float, blend: str) -> int:
  """Returns how far around a hole it is painted.

  A thin hole gets a ring that is no thicker: it may not hide more than the hole does.

  Args:
    scale: pixels of the picture to one of the network's.
    thickness: of the hole, in pixels.
    blend: see `blending.blend`.
  """
  if blend == "none":
    return 0
  return math.ceil(min(_RING * max(scale, 1), max(thickness / 2, 1)))
