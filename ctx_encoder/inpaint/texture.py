"""Fills a large hole with texture of the picture, arranged as the network's fill.

The network fills the hole at reduced size, which fixes what is where; detail finer than
that comes from known parts of the picture, at full resolution.
"""

import numpy as np
from PIL import Image
from scipy import ndimage

_SOURCES = 6000  # positions that are compared, at most
_SHORTLIST = 500  # of them, those whose colours suit a patch best

Offset = tuple[int, int, int, int]  # top, left of a patch; top, left of its source


def paint(image: np.ndarray, hidden: np.ndarray, fill: np.ndarray) -> np.ndarray | None:
  """Fills a hole with patches from known parts of the picture.

  The fill is covered with overlapping patches, those with most known pixels first. Each
  takes its detail from where the picture fits best: the colours to the blurred fill,
  and the pixels to those already there. With blurred fill G and blurred picture B,

    result(x) = G(x) + image(x + offset) - B(x + offset).

  Args:
    image: uint8 `[H, W, 3]`.
    hidden: bool `[H, W]`, true = hole; these pixels are not read.
    fill: uint8 `[S, S, 3]`, the whole picture completed at reduced size.
  Returns:
    uint8 `[H, W, 3]`, valid in the hole; None if no known part is large enough.
  References: Efros and Freeman, Image quilting for texture synthesis and transfer,
    SIGGRAPH 2001; Yi et al., Contextual residual aggregation for ultra high-resolution
    image inpainting, CVPR 2020.
  """
  size = len(fill)
  known = _resized((~hidden).astype(np.float32), (size, size)) > 0.999
  known = ndimage.binary_erosion(known, np.ones((3, 3)), border_value=1)
  pixels = fill.astype(np.float32) / 255
  blurred = _blurred(pixels, np.ones(known.shape, np.float32))
  guide, picture = blurred, _blurred(pixels, known.astype(np.float32))
  offsets = _arranged(pixels, known, guide, picture)
  if offsets is None:
    return None
  channels = [
    _rendered(image[..., c], hidden, guide[..., c], picture[..., c], offsets)
    for c in range(3)
  ]
  return np.stack(channels, 2)


def _blurred(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """Returns averages of `[S, S, 3]` over about a sixteenth of the side."""
  sigma = len(image) / 32
  sums = ndimage.gaussian_filter(image * weight[..., None], (sigma, sigma, 0))
  return sums / np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-4)[..., None]


def _arranged(
  pixels: np.ndarray, known: np.ndarray, guide: np.ndarray, picture: np.ndarray
) -> list[Offset] | None:
  """Chooses the source of every patch; None if there is no source."""
  side = max(2, len(pixels) // 8)
  sources = _sources(known, side)
  if not len(sources):
    return None
  all_at = np.lib.stride_tricks.sliding_window_view
  windows = all_at(pixels, (side, side), axis=(0, 1))  # [top, left, 3, side, side]
  colors = all_at(picture, (side, side), axis=(0, 1))
  step = max(1, side // 4)
  coarse = colors[sources[:, 0], sources[:, 1], :, ::step, ::step]
  coarse = coarse.reshape(len(sources), -1)
  waiting = _patches(known, side)
  wanted = np.stack(
    [guide[y : y + side : step, x : x + side : step] for y, x in waiting]
  )
  wanted = wanted.transpose(0, 3, 1, 2).reshape(len(waiting), -1)
  apart = (coarse**2).sum(1) + (wanted**2).sum(1)[:, None] - 2 * wanted @ coarse.T
  apart = dict(zip(waiting, 3 * apart / wanted.shape[1], strict=True))
  pixels, have = pixels.copy(), known.copy()
  offsets = []
  while waiting:
    y, x = max(
      waiting, key=lambda at: have[at[0] : at[0] + side, at[1] :][:, :side].sum()
    )
    waiting.remove((y, x))
    here = (slice(y, y + side), slice(x, x + side))
    cost = apart[y, x]
    short = np.argsort(cost, kind="stable")[:_SHORTLIST]
    found = windows[sources[short, 0], sources[short, 1]].transpose(0, 2, 3, 1)
    error = ((found - pixels[here]) ** 2).sum(3)[:, have[here]]
    best = np.argmin(cost[short] + error.sum(1) / max(1, error.shape[1]))
    top, left = (int(n) for n in sources[short[best]])
    moved = guide[here] + found[best] - picture[top : top + side, left : left + side]
    pixels[here] = np.where(have[here][..., None], pixels[here], moved)
    have[here] = True
    offsets.append((y, x, top, left))
  return offsets


def _sources(known: np.ndarray, side: int) -> np.ndarray:
  """Returns (top, left) of known squares, int `[N, 2]`, spread over the picture."""
  share = ndimage.minimum_filter(known, side, origin=-(side // 2), mode="constant")
  found = np.argwhere(share[: len(known) - side + 1, : len(known) - side + 1])
  return found[:: -(-len(found) // _SOURCES) or 1]


def _patches(known: np.ndarray, side: int) -> list[tuple[int, int]]:
  """Returns (top, left) of half overlapping squares that cover the hole."""
  starts = []
  for axis in (1, 0):
    (inside,) = np.nonzero(~known.all(axis))
    low, high = inside[0] - side // 4, inside[-1] + 1
    line = np.clip(np.arange(low, high, max(1, side // 2)), 0, len(known) - side)
    starts.append(dict.fromkeys(line.tolist()))
  return [
    (y, x)
    for y in starts[0]
    for x in starts[1]
    if not known[y : y + side, x : x + side].all()
  ]


def _rendered(
  plane: np.ndarray,
  hidden: np.ndarray,
  guide: np.ndarray,
  picture: np.ndarray,
  offsets: list[Offset],
) -> np.ndarray:
  """Returns one channel, uint8 `[H, W]`, at full resolution."""
  height, width = plane.shape
  size = len(guide)
  side = max(2, size // 8)
  detail = plane - 255 * _resized(picture, plane.shape)
  detail[hidden] = 0
  sums, weights = np.zeros(plane.shape, np.float32), np.zeros(plane.shape, np.float32)
  tall, wide = -(-side * height // size), -(-side * width // size)
  window = np.outer(_ramp(tall), _ramp(wide))
  for offset in offsets:
    top, left, from_top, from_left = (
      round(n * length / size)
      for n, length in zip(offset, (height, width) * 2, strict=True)
    )
    rows = min(tall, height - top, height - from_top)
    columns = min(wide, width - left, width - from_left)
    part = window[:rows, :columns]
    source = detail[from_top : from_top + rows, from_left : from_left + columns]
    sums[top : top + rows, left : left + columns] += part * source
    weights[top : top + rows, left : left + columns] += part
  sums /= np.maximum(weights, 1e-9)
  sums += 255 * _resized(guide, plane.shape)
  return np.clip(np.rint(sums), 0, 255).astype(np.uint8)


def _ramp(length: int) -> np.ndarray:
  """Returns weights that rise over the first and fall over the last quarter."""
  rise = np.arange(1, length + 1, dtype=np.float32)
  return np.minimum(np.minimum(rise, rise[::-1]) / max(1, length / 4), 1) ** 2


def _resized(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  # Bilinear: bicubic filters have negative lobes.
  filter = Image.Resampling.BILINEAR
  return np.asarray(Image.fromarray(plane).resize((shape[1], shape[0]), filter))
