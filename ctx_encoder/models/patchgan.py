"""PatchGAN: a discriminator with one logit per patch of an image."""

from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models.layers import ConvStage, Settings, Stage

NORMS = ("batch", "spectral", "none")


def stages(depth: int = 3, norm: str = "batch") -> tuple[Stage, ...]:
  """Returns the table: `depth` strided stages, then one at stride 1.

  Channels double from 64 up to 512. The stride-1 stage, and the convolution to logits
  after it, run on maps that are padded with one pixel of zeros.

  Args:
    depth: strided stages, at least 1.
    norm: "batch" (BatchNorm after all but the first stage), "spectral" (all kernels
      divided by their spectral norm) or "none".
  """
  if depth < 1:
    raise ValueError(f"The discriminator needs a depth of at least 1, not {depth}.")
  if norm not in NORMS:
    raise ValueError(f"norm must be one of {', '.join(NORMS)}, not {norm!r}.")
  first = ("leaky_relu",)
  others = (*first, "norm") if norm == "batch" else first
  spectral = norm == "spectral"
  strided = tuple(
    Stage(min(64 * 2**i, 512), then=others if i else first, spectral=spectral)
    for i in range(depth)
  )
  features = min(64 * 2**depth, 512)
  last = Stage(features, stride=1, padding="VALID", then=others, spectral=spectral)
  return (*strided, last)


def receptive_field(layers: Iterable[tuple[int, int]]) -> int:
  """Returns the side of the input square that affects one output.

  From the last layer back to the first, starting at 1: r = k + s (r - 1).

  Args:
    layers: (kernel, stride) of each layer, in the network's order.
  """
  field = 1
  for kernel, stride in reversed(list(layers)):
    field = kernel + stride * (field - 1)
  return field


def kernels_and_strides(depth: int = 3) -> list[tuple[int, int]]:
  """Returns (kernel, stride) of all convolutions, including the one to logits."""
  return [(kernel, stride) for kernel, stride, _ in windows(depth)]


def windows(depth: int = 3) -> tuple[tuple[int, int, str | int], ...]:
  """Returns (kernel, stride, padding) of all convolutions.

  Padding is "SAME", or the pixels of zeros on each side.
  """
  table = (*stages(depth), Stage(1, stride=1, padding="VALID"))
  return tuple(
    (stage.kernel, stage.stride, 1 if stage.padding == "VALID" else stage.padding)
    for stage in table
  )


class PatchGAN(nn.Module):
  """One logit per patch: `[B, S, S, 3]` to `[B, n, n, 1]` float32, n = S / 2^depth - 2.

  At the default depth a logit depends on 70x70 pixels. `probabilities` applies the
  sigmoid. With `mask_input` the mask is a fourth input channel. `norm`: see `stages`.
  """

  depth: int = 3
  settings: Settings = Settings()
  norm: str = "batch"
  mask_input: bool = False

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array | None = None,
    *,
    train: bool = False,
    features: bool = False,
  ) -> Any:
    """Returns the logits; with `features`, (logits, {stage: its output}).

    Args:
      x: images.
      mask: `[B, S, S, 1]`, 1 = hole, if and only if `mask_input`.
      train: batch statistics, and a power iteration of spectral norms; "batch_stats"
        must be mutable.
      features: whether to return the stages' outputs too.
    """
    if min(x.shape[1:3]) // 2**self.depth < 3:
      raise ValueError(
        f"A discriminator of depth {self.depth} needs images of at least"
        f" {3 * 2**self.depth} pixels a side, not {x.shape[1]}x{x.shape[2]}."
      )
    if self.mask_input != (mask is not None):
      raise ValueError("A discriminator needs `mask` if and only if mask_input is set.")
    if mask is not None:
      if mask.shape != (*x.shape[:3], 1):
        raise ValueError(f"mask must be {(*x.shape[:3], 1)}, not {mask.shape}.")
      x = jnp.concatenate([x, mask.astype(x.dtype)], axis=3)
    outputs = {}
    for i, stage in enumerate(stages(self.depth, self.norm), start=1):
      if stage.padding == "VALID":
        x = _zero_pad(x)
      x = ConvStage(stage, self.settings, name=f"stage{i}")(x, train=train)
      outputs[f"stage{i}"] = x
    # Width scales all stages but the last one, whose single channel is the logit.
    spectral = self.norm == "spectral"
    logit = Stage(1, stride=1, padding="VALID", spectral=spectral)
    unscaled = Settings(init=self.settings.init, dtype=self.settings.dtype)
    x = ConvStage(logit, unscaled, name="output")(_zero_pad(x), train=train)
    logits = x.astype(jnp.float32)
    return (logits, outputs) if features else logits


class MultiScale(nn.Module):
  """PatchGANs of the image at full size, half size and so on.

  Returns a tuple of logits, one array per scale. A patch of a coarser scale shows more
  of the image: at half size 140x140 pixels at the default depth. The other fields are
  those of `PatchGAN`.

  References:
    Wang et al., High-Resolution Image Synthesis and Semantic Manipulation with
    Conditional GANs, CVPR 2018, section 3.2.
  """

  scales: int
  depth: int = 3
  settings: Settings = Settings()
  norm: str = "batch"
  mask_input: bool = False

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array | None = None,
    *,
    train: bool = False,
    features: bool = False,
  ) -> Any:
    """Returns the logits; with `features`, (logits, {scale/stage: its output}).

    The arguments are those of `PatchGAN`.
    """
    logits, outputs = [], {}
    for name in [f"scale{number}" for number in range(1, self.scales + 1)]:
      if logits:
        x = nn.avg_pool(x, (2, 2), (2, 2))
        mask = None if mask is None else nn.avg_pool(mask, (2, 2), (2, 2))
      one = PatchGAN(self.depth, self.settings, self.norm, self.mask_input, name=name)
      found, layers = one(x, mask, train=train, features=True)
      logits.append(found)
      outputs |= {f"{name}/{stage}": output for stage, output in layers.items()}
    return (tuple(logits), outputs) if features else tuple(logits)


def joined(logits: jax.Array | tuple[jax.Array, ...]) -> jax.Array:
  """Returns the logits of all scales, `[B, n]`; those of one scale as they are."""
  if not isinstance(logits, tuple):
    return logits
  return jnp.concatenate([x.reshape(len(x), -1) for x in logits], axis=1)


def probabilities(logits: jax.Array) -> jax.Array:
  """Returns the probability that each patch is real, in [0, 1]."""
  return jax.nn.sigmoid(logits)


def _zero_pad(x: jax.Array) -> jax.Array:
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
