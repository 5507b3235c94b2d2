"""PatchGAN: a discriminator that judges every patch of an image."""

from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models.layers import ConvStage, Settings, Stage

_NORMED = ("leaky_relu", "norm")


def stages(depth: int = 3) -> tuple[Stage, ...]:
  """Returns the table: `depth` strided stages, then two stride-1 stages.

  Channels double from 64 up to 512. The last two stages run on maps that are padded
  with one pixel of zeros; the last gives one logit a patch.
  """
  if depth < 1:
    raise ValueError(f"The discriminator needs a depth of at least 1, not {depth}.")
  strided = tuple(
    Stage(min(64 * 2**i, 512), then=_NORMED if i else ("leaky_relu",))
    for i in range(depth)
  )
  wide = Stage(min(64 * 2**depth, 512), stride=1, padding="VALID", then=_NORMED)
  return (*strided, wide)


def receptive_field(layers: Iterable[tuple[int, int]]) -> int:
  """Returns the side of the input square that one output sees.

  From the last layer back to the first, starting at 1: r = k + s (r - 1).

  Args:
    layers: (kernel, stride) of each layer, in the network's order.
  """
  field = 1
  for kernel, stride in reversed(list(layers)):
    field = kernel + stride * (field - 1)
  return field


def kernels_and_strides(depth: int = 3) -> list[tuple[int, int]]:
  """Returns (kernel, stride) of every convolution, the one to logits included."""
  return [(stage.kernel, stage.stride) for stage in stages(depth)] + [(4, 1)]


def windows(depth: int = 3) -> tuple[tuple[int, int, str | int], ...]:
  """Returns (kernel, stride, padding) of every convolution, as they act on an image.

  Padding is "SAME", or the pixels of zeros at each side.
  """
  table = (*stages(depth), Stage(1, stride=1, padding="VALID"))
  return tuple(
    (stage.kernel, stage.stride, 1 if stage.padding == "VALID" else stage.padding)
    for stage in table
  )


class PatchGAN(nn.Module):
  """Logits, one a patch: `[B, S, S, 3]` to `[B, n, n, 1]` float32, n = S / 2^depth - 2.

  At the default depth each sees 70x70 pixels. `probabilities` are their sigmoid.
  """

  depth: int = 3
  settings: Settings = Settings()

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, features: bool = False
  ) -> Any:
    """Returns the logits; with `features`, (logits, {stage: its output})."""
    if min(x.shape[1:3]) // 2**self.depth < 3:
      raise ValueError(
        f"A discriminator of depth {self.depth} needs images of at least"
        f" {3 * 2**self.depth} pixels a side, not {x.shape[1]}x{x.shape[2]}."
      )
    seen = {}
    for i, stage in enumerate(stages(self.depth), start=1):
      if stage.padding == "VALID":
        x = _zero_pad(x)
      x = ConvStage(stage, self.settings, name=f"stage{i}")(x, train=train)
      seen[f"stage{i}"] = x
    # Width scales every stage but this one, whose single channel is the logit.
    logit = Stage(1, stride=1, padding="VALID")
    unscaled = Settings(init=self.settings.init, dtype=self.settings.dtype)
    x = ConvStage(logit, unscaled, name="output")(_zero_pad(x))
    logits = x.astype(jnp.float32)
    return (logits, seen) if features else logits


def probabilities(logits: jax.Array) -> jax.Array:
  """Returns the probability that each patch is real, in [0, 1]."""
  return jax.nn.sigmoid(logits)


def _zero_pad(x: jax.Array) -> jax.Array:
  return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
