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


def probabilities(logits: jax.Array) -> jax.Array:
  """Returns the probability that each patch is real, in [0, 1]."""
  return jax.nn.sigmoid(logits)


def _zero_pad(x: jax.Array) -> jax.Array:
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
