"""PyTorch twin of `ctx_encoder.models.Landscape`, and a discriminator of patches.

Parameters have the names of the Flax module, with dots for slashes and `weight` for
`kernel`. Images are `[B, C, H, W]`, in channels-last memory.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

MULTIPLE = 8  # that sides of images must be
_LEAKY_SLOPE = 0.2


def conv(inputs, outputs, kernel, *, stride=1, dilation=1, scale=1.0) -> nn.Conv2d:
  """Returns a convolution with normal weights of variance 2 scale^2 / fan-in."""
  pad = dilation * (kernel - 1) // 2
  layer = nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation)
  nn.init.normal_(layer.weight, 0, scale * (2 / (inputs * kernel**2)) ** 0.5)
  nn.init.zeros_(layer.bias)
  return layer


def leaky(x: torch.Tensor) -> torch.Tensor:
  return F.leaky_relu(x, _LEAKY_SLOPE)


class Double(torch.autograd.Function):
  """Nearest upsampling by 2; `interpolate` is slow for bfloat16 in channels-last."""

  @staticmethod
  def forward(ctx, x):
    b, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(b, h, 2, w, 2, c)
    return x.reshape(b, 2 * h, 2 * w, c).permute(0, 3, 1, 2)

  @staticmethod
  def backward(ctx, gradient):
    g = gradient.permute(0, 2, 3, 1)
    g = g[:, ::2] + g[:, 1::2]
    return (g[:, :, ::2] + g[:, :, 1::2]).permute(0, 3, 1, 2)


class Block(nn.Module):
  """Residual 3x3 and 1x1 convolutions."""

  def __init__(self, channels: int, dilation: int):
    super().__init__()
    self.conv = conv(channels, channels, 3, dilation=dilation)
    self.join = conv(channels, channels, 1, scale=0.1)

  def forward(self, x):
    return x + self.join(leaky(self.conv(x)))


class Attention(nn.Module):
  """Residual self-attention with cosine similarity that prefers known positions."""

  def __init__(self, channels: int, heads: int):
    super().__init__()
    self.heads = heads
    self.qkv = conv(channels, 3 * channels, 1)
    self.join = conv(channels, channels, 1, scale=0.1)
    self.factor = nn.Parameter(torch.full((heads,), 8.0))
    self.prefer = nn.Parameter(torch.full((heads,), 1.0))

  def forward(self, x, known):
    b, c, h, w = x.shape
    qkv = self.qkv(x).permute(0, 2, 3, 1)
    qkv = qkv.reshape(b, h * w, 3, self.heads, c // self.heads)
    q, k, v = (qkv[:, :, part].transpose(1, 2) for part in range(3))
    logits = (_unit(q) @ _unit(k).transpose(2, 3)).float()
    logits = logits * self.factor[None, :, None, None]
    logits = logits + self.prefer[None, :, None, None] * known.reshape(b, 1, 1, h * w)
    y = torch.softmax(logits, -1).to(v.dtype) @ v
    y = y.transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2)
    return x + self.join(y)


class Landscape(nn.Module):
  """Predicts what to add to a smoothly filled image.

  Its input is the filled image in [-1, 1] with the mask, `[B, 4, H, W]`, and normal
  noise `[B, 1, H, W]`; the result is `[B, 3, H, W]`. The first four arguments are those
  of the Flax module.

  Args:
    dilations: of the blocks, in turn.
    upsample: "nearest" as in the Flax module, "bilinear" or "transposed" (convolutions
      with kernels of 4x4).
  """

  def __init__(
    self,
    channels=(32, 64, 160),
    blocks=8,
    attend=(3, 6),
    heads=4,
    dilations=(1, 2),
    upsample="nearest",
  ):
    super().__init__()
    half, quarter, eighth = channels
    self.blocks, self.attend, self.upsample = blocks, attend, upsample
    self.stem = conv(4 * 5, half, 3)
    self.down1 = conv(half, quarter, 4, stride=2)
    self.down2 = conv(quarter, eighth, 4, stride=2)
    for number in range(1, blocks + 1):
      dilation = dilations[(number - 1) % len(dilations)]
      self.add_module(f"block{number}", Block(eighth, dilation))
      if number in attend:
        self.add_module(f"attend{number}", Attention(eighth, heads))
    for name, inputs, skip, outputs in (
      ("up1", eighth, quarter, quarter),
      ("up2", quarter, half, half),
      ("head", half, 5, half // 2),
    ):
      self.add_module(f"{name}_in", _upsampling(upsample, inputs, outputs))
      self.add_module(name, conv(outputs + skip, outputs, 3))
    self.paint = conv(half // 2, 3, 3, scale=0.1)

  def forward(self, x, noise):
    hole = x[:, 3:]
    known = 1 - F.avg_pool2d(hole, MULTIPLE)
    x = torch.cat([x, hole * noise], 1)
    if torch.is_autocast_enabled("cpu"):
      x = x.to(torch.get_autocast_dtype("cpu"))
    x = x.contiguous(memory_format=torch.channels_last)
    stem = leaky(self.stem(_space_to_depth(x)))
    down1 = leaky(self.down1(stem))
    y = leaky(self.down2(down1))
    for number in range(1, self.blocks + 1):
      y = self.get_submodule(f"block{number}")(y)
      if number in self.attend:
        y = self.get_submodule(f"attend{number}")(y, known)
    for name, skip in (("up1", down1), ("up2", stem), ("head", x)):
      y = self.get_submodule(f"{name}_in")(y)
      if self.upsample != "transposed":
        y = Double.apply(y) if self.upsample == "nearest" else _bilinear(y)
      y = leaky(self.get_submodule(name)(torch.cat([y, skip], 1)))
    return self.paint(y).float()


class Discriminator(nn.Module):
  """Maps the composited image and the mask `[B, 4, H, W]` to scores of patches.

  Returns scores `[B, 1, H/8, W/8]` and the features of the four layers. Without
  normalisation the score of a patch depends on its own pixels only.

  Args:
    norm: "none", "batch" (after the second to the fourth layer) or "spectral" (of all
      kernels).
  """

  def __init__(self, channels=(48, 96, 192, 192), norm="none"):
    super().__init__()
    a, b, c, d = channels
    self.layers = nn.ModuleList(
      [
        conv(4, a, 4, stride=2),
        conv(a, b, 4, stride=2),
        conv(b, c, 4, stride=2),
        conv(c, d, 3),
      ]
    )
    self.score = conv(d, 1, 3)
    nn.init.normal_(self.score.weight, 0, 0.02)
    if norm == "spectral":
      for layer in (*self.layers, self.score):
        nn.utils.parametrizations.spectral_norm(layer)
    elif norm == "batch":
      for number, features in enumerate((b, c, d), 1):
        layer = nn.Sequential(self.layers[number], nn.BatchNorm2d(features))
        self.layers[number] = layer

  def forward(self, x):
    x = x.contiguous(memory_format=torch.channels_last)
    features = []
    for layer in self.layers:
      x = leaky(layer(x))
      features.append(x)
    return self.score(x), features


class Discriminators(nn.Module):
  """Discriminators of the image at full size, half size and so on.

  The receptive field of the first is 54 pixels, less than a large hole; that of the
  second is 108, so that it compares the hole with its surroundings. Returns a list of
  what each returns.
  """

  def __init__(self, scales: int = 2, norm: str = "none"):
    super().__init__()
    self.scales = nn.ModuleList(Discriminator(norm=norm) for _ in range(scales))

  def forward(self, x):
    return [scale(F.avg_pool2d(x, 2**n)) for n, scale in enumerate(self.scales)]


def to_flax(state: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
  """Returns the parameters with Flax's names and axes (HWIO kernels), float32."""
  arrays = {}
  for name, tensor in state.items():
    array = tensor.detach().float().numpy()
    if name.endswith(".weight"):
      name, array = name.removesuffix("weight") + "kernel", array.transpose(2, 3, 1, 0)
    arrays[name.replace(".", "/")] = np.ascontiguousarray(array)
  return arrays


def from_flax(arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
  """Returns the state dict of `Landscape` for parameters by their Flax names."""
  state = {}
  for name, array in arrays.items():
    array, name = np.array(array, np.float32), name.replace("/", ".")
    if name.endswith(".kernel"):
      name, array = name.removesuffix("kernel") + "weight", array.transpose(3, 2, 0, 1)
    state[name] = torch.from_numpy(np.ascontiguousarray(array))
  return state


def _unit(x: torch.Tensor) -> torch.Tensor:
  """Returns vectors scaled to length 1."""
  square = x.float().square().sum(-1, keepdim=True)
  return (x * torch.rsqrt(square + 1e-6)).to(x.dtype)


def _upsampling(kind: str, inputs: int, outputs: int) -> nn.Module:
  """Returns the layer before the doubling of the sides, or one that doubles them."""
  if kind != "transposed":
    return conv(inputs, outputs, 1)
  layer = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)
  nn.init.normal_(layer.weight, 0, (2 / (4 * inputs)) ** 0.5)  # 4 taps reach a pixel
  nn.init.zeros_(layer.bias)
  return layer


def _bilinear(x: torch.Tensor) -> torch.Tensor:
  return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _space_to_depth(x: torch.Tensor) -> torch.Tensor:
  """Returns 2x2 pixels as channels, in the order (row, column, channel)."""
  b, c, h, w = x.shape
  x = x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4)
  x = x.reshape(b, 4 * c, h // 2, w // 2)
  return x.contiguous(memory_format=torch.channels_last)
