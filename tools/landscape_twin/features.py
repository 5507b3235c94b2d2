"""LPIPS of SqueezeNet and AlexNet, and the smooth fill of a hole, in PyTorch.

Images are `[B, 3, H, W]` in [-1, 1], masks `[B, 1, H, W]`, 1 = hole.
"""

import os

import numpy as np
import torch
import torch.nn.functional as F

from ctx_encoder.models import weights

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of LPIPS


class Lpips:
  """Features of a network, and LPIPS v0.1 as a distance between them.

  Args:
    name: "squeeze" or "alex".
    trunk: file of torchvision's weights of SqueezeNet 1.1 or AlexNet.
    heads: file of the weights of layers that LPIPS publishes for it.
  """

  def __init__(
    self, name: str, trunk: str | os.PathLike[str], heads: str | os.PathLike[str]
  ):
    self._layers = {"squeeze": self._squeezenet, "alex": self._alexnet}[name]
    self._weights = {key: _tensor(array) for key, array in weights.load(trunk).items()}
    linear = weights.load(heads)
    self._heads = [
      _tensor(linear[f"lin{number}.model.1.weight"]).reshape(1, -1, 1, 1)
      for number in range(len(linear))
    ]

  def features(self, images: torch.Tensor) -> list[torch.Tensor]:
    """Returns the layers that LPIPS uses, of the images' type."""
    shift, scale = (
      torch.tensor(x, dtype=images.dtype)[None, :, None, None] for x in (_SHIFT, _SCALE)
    )
    x = (images - shift) / scale
    return self._layers(x.contiguous(memory_format=torch.channels_last))

  def distance(self, a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
    """Returns `[B]` distances between two lists of features.

    The norm of a feature is sqrt(square + 1e-8) here, which has a gradient at 0.
    """
    total = torch.zeros(())
    for x, y, head in zip(a, b, self._heads, strict=True):
      square = (_unit(x) - _unit(y)).square()
      total = total + (square * head).sum(1).mean((1, 2))
    return total

  def _conv(self, x, name, **options):
    weight, bias = (
      self._weights[f"features.{name}.{kind}"].to(x.dtype)
      for kind in ("weight", "bias")
    )
    return F.relu(F.conv2d(x, weight, bias, **options))

  def _alexnet(self, x):
    first = self._conv(x, "0", stride=4, padding=2)
    second = self._conv(F.max_pool2d(first, 3, 2), "3", padding=2)
    third = self._conv(F.max_pool2d(second, 3, 2), "6", padding=1)
    fourth = self._conv(third, "8", padding=1)
    return [first, second, third, fourth, self._conv(fourth, "10", padding=1)]

  def _squeezenet(self, x):
    layers = [self._conv(x, "0", stride=2)]
    for fires in ((3, 4), (6, 7), (9,)):
      x = F.max_pool2d(layers[-1], 3, 2, ceil_mode=True)
      for number in fires:
        x = self._fire(x, number)
      layers.append(x)
    for number in (10, 11, 12):
      layers.append(self._fire(layers[-1], number))
    return layers

  def _fire(self, x, number):
    x = self._conv(x, f"{number}.squeeze")
    wide = self._conv(x, f"{number}.expand3x3", padding=1)
    return torch.cat([self._conv(x, f"{number}.expand1x1"), wide], 1)


@torch.no_grad()
def smooth_fill(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
  """Fills holes with a smooth continuation, as `ctx_encoder.masks.smooth_fill`."""
  return _pull_push(image * (1 - mask), 1 - mask)


def _pull_push(colors, known):
  if max(known.shape[2:]) > 1:
    count = _halved(known)
    share = count.clamp(max=1) / count.clamp(min=1e-6)
    coarse = _pull_push(_halved(colors) * share, count * share)
    size = colors.shape[2:]
    fine = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    colors = colors + (1 - known) * fine
  return colors


def _halved(x):
  """Returns sums of 2x2 pixels; odd sides are padded with 0."""
  h, w = x.shape[2:]
  return 4 * F.avg_pool2d(F.pad(x, (0, w % 2, 0, h % 2)), 2)


def _tensor(array) -> torch.Tensor:
  tensor = torch.from_numpy(np.array(array, np.float32))
  if tensor.ndim == 4:
    tensor = tensor.contiguous(memory_format=torch.channels_last)
  return tensor


def _unit(x):
  x = x.float()
  return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-8)
