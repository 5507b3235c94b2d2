"""Figures on pictures that were not trained on, relative to OpenCV's Telea."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ctx_encoder.evaluation import baselines
from tools.landscape_twin import photographs
from tools.landscape_twin.features import Lpips

Paint = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
_BATCH = 25


@dataclasses.dataclass(frozen=True)
class Figures:
  """LPIPS divided by Telea's, and PSNR of the hole minus Telea's in dB, by kind."""

  lpips: dict[str, float]
  psnr: dict[str, float]

  def __str__(self) -> str:
    parts = [f"{k} {self.lpips[k]:.3f} {self.psnr[k]:+.2f} dB" for k in self.lpips]
    return f"{', '.join(parts)}; mean {np.mean(list(self.lpips.values())):.4f}"


class Holdout:
  """Central squares of pictures, their holes and what Telea makes of them.

  Args:
    folders: of pictures.
    size: side in pixels to which they are scaled.
    count: pictures that are used; they are spread evenly over all.
    alexnet: measures the distance.
  """

  def __init__(self, folders: Sequence[str], size: int, count: int, alexnet: Lpips):
    loaded = photographs.load(folders, smallest=size)
    chosen = loaded[:: -(-len(loaded) // count)]
    self._images = np.stack([photographs.centre(image, size) for image in chosen])
    self._alexnet = alexnet
    self._masks, self._telea = {}, {}
    for kind in photographs.KINDS:
      masks = photographs.draw_holes(kind, size, len(chosen), seed=7)
      filled = [
        baselines.telea(image, mask > 0)
        for image, mask in zip(self._images, masks, strict=True)
      ]
      self._masks[kind] = masks
      self._telea[kind] = self._measure(np.stack(filled), masks)

  def __len__(self) -> int:
    return len(self._images)

  @torch.no_grad()
  def figures(self, paint: Paint) -> Figures:
    """Measures `paint(image, mask, noise)`, which returns images in [-1, 1]."""
    random = torch.Generator().manual_seed(1)
    lpips, psnr = {}, {}
    for kind, masks in self._masks.items():
      completed = []
      for start in range(0, len(masks), _BATCH):
        image = to_tensor(self._images[start : start + _BATCH])
        mask = torch.from_numpy(masks[start : start + _BATCH]).float()[:, None]
        noise = torch.randn(1, 1, *mask.shape[2:], generator=random)
        output = paint(image, mask, noise.expand_as(mask))
        completed.append(to_uint8(image * (1 - mask) + output * mask))
      distance, ratio = self._measure(np.concatenate(completed), masks)
      lpips[kind] = distance / self._telea[kind][0]
      psnr[kind] = ratio - self._telea[kind][1]
    return Figures(lpips, psnr)

  @torch.no_grad()
  def _measure(self, completed: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """Returns the mean LPIPS, and the mean PSNR of the holes in dB."""
    distances = []
    for start in range(0, len(completed), _BATCH):
      ours, theirs = (
        self._alexnet.features(to_tensor(images[start : start + _BATCH]))
        for images in (completed, self._images)
      )
      distances.append(self._alexnet.distance(ours, theirs))
    error = (completed.astype(np.float32) - self._images) / 255
    square = np.sum(error**2, axis=(1, 2, 3)) / (3 * np.sum(masks, axis=(1, 2)))
    psnr = -10 * np.log10(np.maximum(square, 1e-10))
    return float(torch.cat(distances).mean()), float(psnr.mean())


def to_tensor(images: np.ndarray) -> torch.Tensor:
  """Returns uint8 images `[B, H, W, 3]` as `[B, 3, H, W]` in [-1, 1]."""
  return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images: torch.Tensor) -> np.ndarray:
  """The inverse of `to_tensor`, rounded."""
  images = (images.clamp(-1, 1) * 127.5 + 127.5).round()
  return images.permute(0, 2, 3, 1).to(torch.uint8).numpy()
