"""Encoders: from the masked image to a small feature map."""

import dataclasses
import math

import flax.linen as nn
import jax

from ctx_encoder.models.layers import (
  ConvStage,
  Settings,
  Stage,
  stage_keys,
  stage_momenta,
)

_ALEXNET = {"stride": 1, "momentum": 0.99}

# AlexNet-like; 128x128x3 -> 30 -> 14 -> 6 -> 6 -> 6 -> 2x2x256. The report prints
# stride 2 for the fourth stage's pooling, but its output shape is that of stride 1.
PHOTOS = (
  Stage(96, 11, 4, "VALID", ("norm", "relu", "pool"), momentum=0.99),
  Stage(256, 5, then=("norm", "relu", "pool"), **_ALEXNET),
  Stage(384, 3, then=("norm", "relu"), **_ALEXNET),
  Stage(384, 3, then=("norm", "relu", "pool_same"), **_ALEXNET),
  Stage(256, 3, then=("norm", "relu", "pool"), **_ALEXNET),
)

_NORMED = ("leaky_relu", "norm")
_DROPPED = ("leaky_relu", "norm", "dropout")

# DCGAN-like; 128x128x3 -> 64 -> 32 -> 16 -> 8 -> 4x4x512. The report prints stride 2
# for the last stage, but its output shape is that of stride 1.
MONET = (
  Stage(64, then=_NORMED),
  Stage(64, then=_NORMED),
  Stage(128, then=_NORMED),
  Stage(256, then=_DROPPED, dropout=0.5),
  Stage(512, then=_DROPPED, dropout=0.5),
  Stage(512, stride=1, then=("leaky_relu", "dropout"), dropout=0.5),
)


def photos_stages(image_size: int) -> tuple[Stage, ...]:
  """Returns the table for an image size; its output is always 2x2x256.

  Larger images add copies of the last stage, smaller images remove pooling layers.
  """
  doublings = _doublings(image_size)
  if doublings >= 0:
    return PHOTOS + PHOTOS[-1:] * doublings
  stages = list(PHOTOS)
  pooled = [i for i, stage in enumerate(stages) if "pool" in stage.then]
  for i in pooled[doublings:]:
    then = tuple(layer for layer in stages[i].then if layer != "pool")
    stages[i] = dataclasses.replace(stages[i], then=then)
  return tuple(stages)


def monet_stages(image_size: int) -> tuple[Stage, ...]:
  """Returns the table for an image size; its output is always 4x4x512.

  Larger images add copies of the last strided stage, smaller images remove strided
  stages.
  """
  doublings = _doublings(image_size)
  strided, last = MONET[:-1], MONET[-1:]
  if doublings >= 0:
    return strided + strided[-1:] * doublings + last
  return strided[:doublings] + last


def deepened(stages: tuple[Stage, ...], more: int) -> tuple[Stage, ...]:
  """Returns a table with more or fewer of the stages that keep the map's size.

  Args:
    stages: the table of an encoder.
    more: number of copies of the first such stage to add; if negative, number of such
      stages to remove, from the first on.

  Raises:
    ValueError: there are fewer such stages than `more` removes.
  """
  keeping = [
    i
    for i, stage in enumerate(stages)
    if stage.stride == 1 and stage.padding == "SAME" and "pool" not in stage.then
  ]
  if more < -len(keeping):
    raise ValueError(
      f"The encoder has {len(keeping)} stages that keep the map's size; {-more} cannot"
      " be removed."
    )
  if more >= 0:
    first = keeping[0] if keeping else len(stages) - 1
    return stages[:first] + stages[first : first + 1] * more + stages[first:]
  removed = keeping[:-more]
  return tuple(stage for i, stage in enumerate(stages) if i not in removed)


def _doublings(image_size: int) -> int:
  doublings = math.log2(image_size / 128)
  if image_size < 16 or doublings != int(doublings):
    raise ValueError(
      f"Image size must be a power of two of at least 16, not {image_size}."
    )
  return int(doublings)


class Encoder(nn.Module):
  """Runs a table of stages: `[B, S, S, C]` to `[B, s, s, features]`."""

  stages: tuple[Stage, ...]
  settings: Settings = Settings()

  @property
  def layers(self) -> tuple[str, ...]:
    """Names of the stages, in order."""
    return tuple(f"stage{i + 1}" for i in range(len(self.stages)))

  def __call__(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    return self.maps(x, train=train, keys=keys)[-1]

  @nn.compact
  def maps(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> list[jax.Array]:
    """Returns the output of every stage."""
    found = []
    for i, (name, stage) in enumerate(zip(self.layers, self.stages, strict=True)):
      block = ConvStage(stage, self.settings, name=name)
      x = block(x, train=train, keys=stage_keys(keys, i))
      found.append(x)
    return found

  @nn.nowrap
  def momenta(self) -> dict:
    """Returns the BatchNorm momenta, nested as the running statistics are."""
    return stage_momenta(self.stages)

  @nn.nowrap
  def trainable(self) -> dict[tuple[str, ...], None]:
    """Returns {}: all parameters are trained, see `Generator.trainable`."""
    return {}
