"""The view: what the generator is given, and what its output means."""

import dataclasses

import jax
import jax.numpy as jnp

from ctx_encoder import masks, pixels


@dataclasses.dataclass(frozen=True)
class Examples:
  """A batch as the networks take it.

  mask: `[B, S, S, 1]`, 1 = hole.
  targets: `[B, S, S, 3]`, the originals, normalized.
  inputs: `[B, S, S, 3]`, or `[B, S, S, 4]` with the mask: the generator's input.
  scale: conversion from and to normalized values.
  """

  mask: jax.Array
  targets: jax.Array
  inputs: jax.Array
  scale: pixels.Scale


@dataclasses.dataclass(frozen=True)
class View:
  """Input and output of the generator: all that inference needs besides the network.

  image_size: side of the input.
  fill: colour of the hole, RGB in [0, 1]; None = `masks.smooth_fill`.
  normalization: see `pixels.scale_of`.
  mask_channel: whether the mask is a fourth channel of the input.
  predict: what the output is: the "image", its centre half ("patch"), or the "residual"
    that is added to the input.
  """

  image_size: int
  fill: tuple[float, float, float] | None
  normalization: str
  mask_channel: bool
  predict: str

  @property
  def channels(self) -> int:
    """Channels of the input."""
    return 4 if self.mask_channel else 3

  @property
  def output_size(self) -> int:
    """Side of the output."""
    return self.image_size // 2 if self.predict == "patch" else self.image_size

  def examples(self, images: jax.Array, mask: jax.Array) -> Examples:
    """Masks and normalizes images.

    Args:
      images: `[B, S, S, 3]` in [0, 1].
      mask: `[B, S, S, 1]`, 1 = hole.
    """
    scale = pixels.scale_of(images, mask, self.normalization)
    inputs = scale.normalize(self.masked(images, mask))
    if self.mask_channel:
      inputs = jnp.concatenate([inputs, mask], axis=3)
    return Examples(mask, scale.normalize(images), inputs, scale)

  def masked(self, images: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns images in [0, 1] with filled holes."""
    fill = None if self.fill is None else jnp.asarray(self.fill)
    return masks.masked_image(images, mask, fill)

  def predicted(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns the predicted images `[B, S, S, 3]`, normalized; 0 around a patch."""
    if self.predict == "image":
      return outputs
    if self.predict == "residual":
      return examples.inputs[..., :3] + outputs
    margin = (self.image_size - outputs.shape[1]) // 2
    return jnp.pad(outputs, ((0, 0), (margin, margin), (margin, margin), (0, 0)))

  def composite(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns originals with predicted holes, `[B, S, S, 3]`, normalized."""
    hole = examples.mask
    return (1 - hole) * examples.targets + hole * self.predicted(outputs, examples)

  def completed(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns originals with predicted holes, `[B, S, S, 3]` in [0, 1]."""
    return examples.scale.restore(self.composite(outputs, examples))
