"""The same networks and the same training step in PyTorch, to compare with."""

import functools
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ctx_encoder.models.layers import BATCH_NORM_EPSILON, LEAKY_SLOPE, Stage

MODES = ("eager", "channels_last", "compiled")
if torch.cuda.is_available():
  MODES += ("compiled, channels_last",)
  torch.set_float32_matmul_precision("high")  # TF32, as in JAX


def _conv(inputs: int, stage: Stage, features: int) -> list[nn.Module]:
  if stage.padding == "VALID":
    return [nn.Conv2d(inputs, features, stage.kernel, stage.stride)]
  # TensorFlow's padding of even maps: in all kernel - stride, the smaller half first.
  total = stage.kernel - stage.stride
  low, high = total // 2, total - total // 2
  pad = [nn.ZeroPad2d((low, high, low, high))] if low != high else []
  symmetric = low if low == high else 0
  conv = nn.Conv2d(inputs, features, stage.kernel, stage.stride, symmetric)
  return [*pad, conv]


def _then(stage: Stage, features: int) -> Iterable[nn.Module]:
  for layer in stage.then:
    yield {
      "norm": lambda: nn.BatchNorm2d(
        features, eps=BATCH_NORM_EPSILON, momentum=1 - stage.momentum
      ),
      "relu": lambda: nn.ReLU(inplace=True),
      "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
      "pool": lambda: nn.MaxPool2d(3, 2),
      "pool_same": lambda: nn.MaxPool2d(3, 1, 1),
      "dropout": lambda: nn.Dropout(stage.dropout),
    }[layer]()


class _Resize(nn.Module):
  def __init__(self, size: int):
    super().__init__()
    self.size = size

  def forward(self, x):
    return F.interpolate(x, self.size, mode="bilinear", align_corners=False)


def generator(name: str, image_size: int, width: float) -> nn.Sequential:
  """Returns the generator, from the tables that the Flax one is made from."""
  from ctx_encoder.models import decoder, encoder

  def channels(features: int) -> int:
    return max(1, round(features * width))

  modules: list[nn.Module] = []
  inputs = 3
  stages = getattr(encoder, f"{name}_stages")(image_size)
  for stage in stages:
    features = channels(stage.features)
    modules += [*_conv(inputs, stage, features), *_then(stage, features)]
    inputs = features
  if name == "photos":
    code = channels(256)
    modules += [nn.Flatten(), nn.Linear(2 * 2 * inputs, 36 * code), nn.ReLU()]
    modules += [nn.Dropout(0.4), nn.Unflatten(1, (code, 6, 6))]
    table, start, inputs = decoder.PHOTOS, 6, code
    prefix: tuple[Stage, ...] = ()
  else:
    code = channels(4000)
    modules += [nn.Conv2d(inputs, code, 4), nn.LeakyReLU(LEAKY_SLOPE)]
    modules += [nn.BatchNorm2d(code, eps=BATCH_NORM_EPSILON, momentum=0.2)]
    table, start, inputs = decoder.MONET, 4, code
    prefix = decoder.MONET_FROM_PIXEL
  stages = (*prefix, *decoder.stages_to(table, start, image_size))
  for stage in (*stages, Stage(3)):
    features = 3 if stage == Stage(3) else channels(stage.features)
    modules += [nn.ConvTranspose2d(inputs, features, 4, 2, 1), *_then(stage, features)]
    inputs = features
  side = start * 2 ** (len(stages) - len(prefix) + 1)
  if side != image_size:
    modules.append(_Resize(image_size))
  return nn.Sequential(*modules, nn.Tanh())


def discriminator(width: float) -> nn.Sequential:
  """Returns the PatchGAN, to logits."""
  from ctx_encoder.models import patchgan

  modules: list[nn.Module] = []
  inputs = 3
  for stage in patchgan.stages():
    features = max(1, round(stage.features * width))
    if stage.padding == "VALID":
      modules.append(nn.ZeroPad2d(1))
    modules += [*_conv(inputs, stage, features), *_then(stage, features)]
    inputs = features
  return nn.Sequential(*modules, nn.ZeroPad2d(1), nn.Conv2d(inputs, 1, 4))


def _mixed(args, device: str):
  """Autocast to bfloat16, if that is what is measured."""
  wanted = getattr(args, "dtype", "float32") == "bfloat16"
  return torch.autocast(device, torch.bfloat16, enabled=wanted)


def train_step(args, images: np.ndarray, mask: np.ndarray, mode: str):
  """Returns a function that makes one step and waits for it.

  Both gradients are taken at the same point from one pair of forward passes.

  Args:
    args: generator, image_size, width.
    images: float32 `[B, S, S, 3]` in [-1, 1].
    mask: float32 `[B, S, S, 1]`, 1 = hole.
    mode: one of `MODES`.
  """
  device = "cuda" if torch.cuda.is_available() else "cpu"
  form = torch.channels_last if "channels_last" in mode else torch.contiguous_format
  to = functools.partial(torch.Tensor.to, device=device, memory_format=form)
  real = to(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
  hole = to(torch.from_numpy(mask).permute(0, 3, 1, 2).contiguous())
  networks = [
    network.to(device, memory_format=form).train()
    for network in (
      generator(args.generator, args.image_size, args.width),
      discriminator(args.width),
    )
  ]
  optimizers = [
    torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999), fused=True)
    for network in networks
  ]
  parameters = [list(network.parameters()) for network in networks]
  complete, discriminate = networks
  if mode.startswith("compiled"):
    complete, discriminate = torch.compile(complete), torch.compile(discriminate)

  def step():
    with _mixed(args, device):
      outputs = complete((1 - hole) * real - hole).float()
      completed = (1 - hole) * real + hole * outputs
      logits_real, logits_fake = (
        discriminate(real).float(),
        discriminate(completed).float(),
      )
    judging = F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()
    error = ((outputs - real) ** 2 * hole).sum() / (3 * hole.sum())
    painting = 0.999 * error + 0.001 * F.softplus(-logits_fake).mean()
    gradients = (
      torch.autograd.grad(painting, parameters[0], retain_graph=True),
      torch.autograd.grad(judging, parameters[1]),
    )
    for own, found, optimizer in zip(parameters, gradients, optimizers, strict=True):
      for parameter, gradient in zip(own, found, strict=True):
        parameter.grad = gradient
      optimizer.step()
    return float(painting.detach()) + float(judging.detach())

  return step


def inference(args, images: np.ndarray, mask: np.ndarray, mode: str):
  """Returns a function that completes the images and waits for it."""
  device = "cuda" if torch.cuda.is_available() else "cpu"
  form = torch.channels_last if "channels_last" in mode else torch.contiguous_format
  real = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
  hole = torch.from_numpy(mask).permute(0, 3, 1, 2).contiguous()
  real, hole = (x.to(device, memory_format=form) for x in (real, hole))
  network = generator(args.generator, args.image_size, args.width)
  network = network.to(device, memory_format=form).eval()
  complete = torch.compile(network) if mode.startswith("compiled") else network

  @torch.inference_mode()
  def run():
    with _mixed(args, device):
      outputs = complete((1 - hole) * real - hole).float()
    return ((1 - hole) * real + hole * outputs).cpu()

  return run
