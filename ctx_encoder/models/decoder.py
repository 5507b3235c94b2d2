"""Decoders: from the code to pixels in [-1, 1]."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder import pixels
from ctx_encoder.models.layers import (
  ConvStage,
  Settings,
  Stage,
  stage_keys,
  stage_momenta,
  upsample,
)
from ctx_encoder.models.ops import conv

_NORMED = ("relu", "norm")

# From 6x6x256: 12 -> 24 -> 48 -> 96, then 192x192x3, resized to 128x128x3.
PHOTOS = (
  Stage(128),
  Stage(64, then=_NORMED),
  Stage(64, then=_NORMED),
  Stage(32, then=_NORMED),
)
# Precedes PHOTOS after a bottleneck with a single pixel.
PHOTOS_FROM_PIXEL = (Stage(256), Stage(256, then=_NORMED))

# From 4x4x512: 8 -> 16 -> 32 -> 64, then 128x128x3.
MONET = (
  Stage(512, then=_NORMED),
  Stage(256, then=_NORMED),
  Stage(128, then=_NORMED),
  Stage(64, then=_NORMED),
)
# From 1x1x4000: 2 -> 4.
MONET_FROM_PIXEL = (Stage(512), Stage(512, then=_NORMED))


def stages_to(stages: tuple[Stage, ...], start: int, size: int) -> tuple[Stage, ...]:
  """Returns as many stages as leave one more doubling to reach `size`.

  A longer table than needed is cut, a shorter one gets copies of its last stage.

  Args:
    stages: a table of stages that each double the side.
    start: side of the table's input.
    size: side of the decoder's output.
  """
  needed = 0
  while start * 2 ** (needed + 1) < size:
    needed += 1
  return stages[:needed] + stages[-1:] * (needed - len(stages))


class Decoder(nn.Module):
  """Runs a table of upsampling stages to `[B, size, size, 3]`, float32.

  The last layer gives three channels; if the map is then larger than `size` it is
  resized (bilinear, without antialiasing, as Keras's `Resizing`), then tanh.

  `skips` are the encoder's maps, `[B, s, s, C]` each. The last map with the same side
  as a layer's input is concatenated to it (skip connections: Ronneberger, Fischer and
  Brox, U-Net, MICCAI 2015). `upsample` is "transposed" (the report's transposed
  convolutions) or "resize", see `layers.upsample`.
  """

  stages: tuple[Stage, ...]
  size: int
  settings: Settings = Settings()
  upsample: str = "transposed"

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    *,
    skips: Sequence[jax.Array] = (),
    train: bool = False,
    keys: jax.Array | None = None,
  ) -> jax.Array:
    by_side = {skip.shape[1]: skip for skip in skips}

    def joined(x: jax.Array) -> jax.Array:
      skip = by_side.get(x.shape[1])
      return x if skip is None else jnp.concatenate([x, skip.astype(x.dtype)], axis=3)

    for i, stage in enumerate(self.stages):
      block = ConvStage(stage, self.settings, self.upsample, name=f"stage{i + 1}")
      x = block(joined(x), train=train, keys=stage_keys(keys, i))
    x = upsample(joined(x), self.upsample, 3, 4, 2, self.settings, "output")
    shape = (x.shape[0], self.size, self.size, 3)
    return jnp.tanh(pixels.resize(x.astype(jnp.float32), shape, antialias=False))

  @nn.nowrap
  def trainable(self, side: int) -> dict[tuple[str, ...], tuple[slice, slice]]:
    """Returns the kernel taps that get gradients, for kernels that have others too.

    Args:
      side: side of the decoder's input, pixels.

    Returns:
      {path of the kernel: slices of its first two axes}; see `Generator.trainable`.
    """
    found = {}
    for i, stage in enumerate(self.stages if self.upsample == "transposed" else ()):
      taps = conv.reached_taps(side, stage.kernel, stage.stride)
      if taps != slice(0, stage.kernel):
        found[f"stage{i + 1}", "conv", "kernel"] = (taps, taps)
      side *= stage.stride
    return found

  @nn.nowrap
  def momenta(self) -> dict:
    """Returns the BatchNorm momenta, nested as the running statistics."""
    return stage_momenta(self.stages)
