"""Fills a large hole at full resolution with tiles, from its border inwards."""

from collections.abc import Callable, Sequence

import numpy as np

from ctx_encoder.inpaint.regions import Box, cut

_MAX_HIDDEN = 0.5  # share of hidden pixels in a tile

Network = Callable[[np.ndarray, np.ndarray, int], Sequence[np.ndarray]]


def paint(
  image: np.ndarray, hole: np.ndarray, network: Network, size: int, reach: float
) -> np.ndarray:
  """Fills a hole with overlapping tiles.

  Works in rounds. Each round completes the tiles in which at most half of the pixels
  are hidden or, if there are none, those with the fewest hidden pixels. Overlapping
  tiles are averaged with weights that fall from a tile's centre to its border. The
  filled pixels are known in later rounds.

  Args:
    image: uint8 `[H, W, 3]`.
    hole: bool `[H, W]`, with at least one known pixel.
    network: uint8 `[N, S, S, 3]`, bool `[N, S, S]` and the number of hidden pixels that
      the N tiles fill, to completed uint8 images.
    size: S, the side of a tile.
    reach: share of a tile's side, in its centre, that the network generates.
  Returns:
    uint8 `[H, W, 3]`.
  """
  height, width = hole.shape
  margin = round(size * (1 - reach) / 2)  # puts every pixel within reach of a tile
  frame = Box(0, 0, max(height, size), max(width, size)).enlarged(margin)
  image, hidden = cut(image, frame), cut(hole, frame)
  image[hidden] = 0
  window = _window(size, reach)
  reached = window > 0
  stride = max(1, round(size * reach / 2))
  places = [
    (top, left)
    for top in _starts(frame.height, size, stride)
    for left in _starts(frame.width, size, stride)
  ]
  while True:
    # Keep tiles with hidden pixels within the network's reach.
    holes = {place: hidden[_slices(place, size)] for place in places}
    shares = {
      place: tile.mean() for place, tile in holes.items() if (tile & reached).any()
    }
    if not shares:
      break
    most = max(_MAX_HIDDEN, min(shares.values()))
    places = list(shares)
    chosen = [place for place, share in shares.items() if share <= most]
    chosen = _needed(chosen, holes, window, hidden.shape)
    completed = network(
      np.stack([image[_slices(place, size)] for place in chosen]),
      np.stack([holes[place] for place in chosen]),
      _filled(hidden, window, chosen),
    )
    sums = np.zeros(image.shape, np.float32)
    weights = np.zeros((*hidden.shape, 1), np.float32)
    for place, tile in zip(chosen, completed, strict=True):
      weight = (window * holes[place])[..., None]
      sums[_slices(place, size)] += weight * tile
      weights[_slices(place, size)] += weight
    done = weights[..., 0] > 0
    image[done] = np.rint(sums[done] / weights[done])
    hidden &= ~done
  return image[margin : margin + height, margin : margin + width]


def _needed(places, holes, window: np.ndarray, shape: tuple[int, int]) -> list:
  """Leaves out tiles whose hidden pixels are all well inside of others.

  Tiles with much of the hole in their centre come first.
  """
  well = window >= window.max() / 4
  weight = {place: (window * holes[place]).sum() for place in places}
  covered = np.zeros(shape, bool)
  chosen = []
  for place in sorted(places, key=lambda place: -weight[place]):
    part = covered[_slices(place, len(window))]
    if (holes[place] & (window > 0) & ~part).any():
      part |= well
      chosen.append(place)
  return chosen


def _filled(hidden: np.ndarray, window: np.ndarray, chosen) -> int:
  """Returns how many hidden pixels the chosen tiles fill."""
  reached = np.zeros(hidden.shape, bool)
  for place in chosen:
    reached[_slices(place, len(window))] |= window > 0
  return int(np.count_nonzero(reached & hidden))


def _slices(place: tuple[int, int], size: int) -> tuple[slice, slice]:
  top, left = place
  return slice(top, top + size), slice(left, left + size)


def _starts(length: int, size: int, stride: int) -> list[int]:
  """Returns the first pixels of tiles; the last tile ends at `length`."""
  return [*range(0, length - size, stride), length - size]


def _window(size: int, reach: float) -> np.ndarray:
  """Returns weights `[size, size]`: a pyramid within the reach, 0 outside."""
  half = round(size * reach / 2)
  rise = np.arange(1, half + 1)
  line = np.concatenate([rise, rise[::-1]]).astype(np.float32)
  line = np.pad(line, (size - 2 * half) // 2)
  return np.outer(line, line)
