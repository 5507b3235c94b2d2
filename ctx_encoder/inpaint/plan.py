"""Plans how to fill a picture's holes: strategy and crop of each."""

import dataclasses
import math

import numpy as np

from ctx_encoder.inpaint import pictures, regions

STRATEGIES = ("auto", "whole", "crops", "texture", "tiles")

_RING = 2  # width of the generated ring around a hole, in the network's pixels


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """One or several holes, and the crop that the network completes.

  Attributes:
    strategy: "crops" completes the crop at once, scaled; "texture" adds detail of the
      picture to that; "tiles" completes tile by tile.
    box: the crop; it may reach beyond the picture.
    inside: the part of the crop within the picture, height H and width W.
    hole: bool `[H, W]`, the pixels to fill.
    hidden: bool, of the box's shape: the pixels hidden from the network.
    ring: width of the generated ring around the hole, for blending, in pixels.
  """

  strategy: str
  box: regions.Box
  inside: regions.Box
  hole: np.ndarray
  hidden: np.ndarray
  ring: int


def jobs(
  mask: np.ndarray, size: int, reach: float, strategy: str, blend: str
) -> list[Job]:
  """Plans how to fill the holes of a mask.

  Args:
    mask: bool `[H, W]`, true = hole.
    size: side of the network's input, in pixels.
    reach: share of the side, in the centre, that the network generates.
    strategy: one of `STRATEGIES`.
    blend: one of `blending.BLENDS`.
  Raises:
    ValueError: strategy "whole" with a network that generates only the centre.
  """
  if strategy != "whole":
    return [
      _job(pixels, mask, size, reach, strategy, blend)
      for pixels in regions.holes(mask, max(1, size // 8))
    ]
  if reach < 1:
    raise ValueError(
      "this network generates only the centre of a square; use the strategy crops."
    )
  box = regions.Box(0, 0, *mask.shape)
  ring = _ring(box.longest / size, np.count_nonzero(mask) / box.longest, blend)
  return [Job("crops", box, box, mask, pictures.grown(mask, ring), ring)]


def _job(
  pixels: np.ndarray,
  mask: np.ndarray,
  size: int,
  reach: float,
  strategy: str,
  blend: str,
) -> Job:
  """Returns the job of one hole, given as (rows, columns), int `[2, N]`."""
  bounds = regions.box_of(pixels)
  if strategy == "auto":
    strategy = _choose(bounds, pixels.shape[1], size)
  scale = 1 if strategy == "tiles" else 2 * bounds.longest / size
  ring = _ring(scale, pixels.shape[1] / bounds.longest, blend)
  wanted = bounds.enlarged(ring).within(*mask.shape)
  if strategy != "tiles":
    # A margin of two pixels within the generated part, since scaling uses neighbours.
    share = reach - 4 / size if reach < 1 else None
    box = regions.around(wanted, size, mask.shape, share)
  else:
    box = wanted.enlarged(size).within(*mask.shape)
  inside = box.within(*mask.shape)
  hole = np.zeros((inside.height, inside.width), bool)
  hole[pixels[0] - inside.top, pixels[1] - inside.left] = True
  hidden = regions.cut(mask, inside) | pictures.grown(hole, ring)
  hidden = regions.cut(hidden, box.relative_to(inside))
  return Job(strategy, box, inside, hole, hidden, ring)


def _choose(box: regions.Box, pixels: int, size: int) -> str:
  """Returns the strategy for a hole of `pixels` pixels with the bounding box `box`.

  A large hole that fills little of its box has enough context in tiles, which preserve
  detail that scaling by more than two would lose. What else is larger than half of the
  network's input is scaled down, and gets its detail from the picture.
  """
  thin = pixels < 0.25 * box.height * box.width or min(box.height, box.width) < size / 2
  if box.longest > size and thin:
    return "tiles"
  return "texture" if box.longest > size / 2 else "crops"


def _ring(scale: float, thickness: float, blend: str) -> int:
  """Returns the width of the generated ring around a hole, in pixels.

  The ring hides known pixels from the network, so at a thin hole it is thin too.

  Args:
    scale: pixels of the picture per pixel of the network.
    thickness: thickness of the hole, in pixels.
    blend: one of `blending.BLENDS`.
  """
  if blend == "none":
    return 0
  return math.ceil(min(_RING * max(scale, 1), max(thickness / 2, 1)))
