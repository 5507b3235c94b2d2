"""What a generator is asked for: the hole, what it sees, and how it is judged."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ctx_encoder import augment as augmentation
from ctx_encoder import losses, masks, pixels


@dataclasses.dataclass(frozen=True)
class Examples:
  """A batch as the networks see it.

  mask: `[B, S, S, 1]`, 1 = hole.
  targets: `[B, S, S, 3]`, the originals, normalised.
  inputs: `[B, S, S, 3]` or with the mask `[B, S, S, 4]`, what the generator sees.
  scale: from and to normalised values.
  """

  mask: jax.Array
  targets: jax.Array
  inputs: jax.Array
  scale: pixels.Scale


@dataclasses.dataclass(frozen=True)
class Task:
  """What the generator is asked for, and how its answer is judged.

  image_size: side of the generator's input.
  sample_mask: PRNG key to mask, see `masks.make_sampler`.
  augment: (PRNG key, image) to image, see `augment.make_augment`.
  fill: colour of the hole, RGB in [0, 1].
  normalization: see `pixels.scale_of`.
  mask_channel: whether the generator sees the mask as a fourth channel.
  predict: "image", or "patch" for the centre half alone.
  sees: what the discriminator is shown: the "completed" image, the generator's raw
    "output", or the raw centre "patch".
  norm, per: "l2" or "l1" error, divided by the size of the "hole" or the "image".
  overlap: pixels around the hole that are predicted too; their error counts
    `overlap_weight` times.
  loss_weights: factors of "reconstruction" and "adversarial". Where the latter is 0 the
    discriminator is neither run nor trained.
  """

  image_size: int
  sample_mask: masks.Sampler
  augment: augmentation.Augment
  fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
  normalization: str = "symmetric"
  mask_channel: bool = False
  predict: str = "image"
  sees: str = "completed"
  norm: str = "l2"
  per: str = "hole"
  overlap: int = 0
  overlap_weight: float = 10.0
  loss_weights: Mapping[str, float] = dataclasses.field(
    default_factory=lambda: {"reconstruction": 0.999, "adversarial": 0.001}
  )

  @property
  def channels(self) -> int:
    """Channels of the generator's input."""
    return 4 if self.mask_channel else 3

  @property
  def output_size(self) -> int:
    """Side of the generator's output."""
    return self.image_size // 2 if self.predict == "patch" else self.image_size

  @property
  def judged_size(self) -> int:
    """Side of what the discriminator sees."""
    return self.output_size if self.sees == "patch" else self.image_size

  def see(self, images: jax.Array, mask: jax.Array) -> Examples:
    """Masks and normalises images.

    Args:
      images: `[B, S, S, 3]` in [0, 1].
      mask: `[B, S, S, 1]`, 1 = hole.
    """
    scale = pixels.scale_of(images, mask, self.normalization)
    inputs = scale.normalize(masks.masked_image(images, mask, jnp.asarray(self.fill)))
    if self.mask_channel:
      inputs = jnp.concatenate([inputs, mask], axis=3)
    return Examples(mask, scale.normalize(images), inputs, scale)

  def completed(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns the completed images `[B, S, S, 3]` in [0, 1]."""
    return examples.scale.restore(self._blend(outputs, examples))

  def judged(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns what the discriminator sees of the generator's work, normalised."""
    if self.sees == "completed":
      return self._blend(outputs, examples)
    return outputs if self.sees == "patch" else self._whole(outputs)

  def judged_real(self, examples: Examples) -> jax.Array:
    """Returns what the discriminator sees of the originals, normalised."""
    if self.sees == "patch":
      return augmentation.center_crop(examples.targets, self.output_size)
    return examples.targets

  def reconstruction(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns the reconstruction error of each example, `[B]`, on normalised values."""
    loss = {"l2": losses.masked_l2, "l1": losses.masked_l1}[self.norm]
    mask, weights = examples.mask, None
    if self.overlap:
      ring = masks.border_ring(mask, self.overlap)
      mask, weights = mask + ring, mask + self.overlap_weight * ring
    return loss(
      self._whole(outputs), examples.targets, mask, per=self.per, weights=weights
    )

  def _whole(self, outputs: jax.Array) -> jax.Array:
    """Puts a predicted patch in its place on an empty image."""
    if self.predict == "image":
      return outputs
    margin = (self.image_size - outputs.shape[1]) // 2
    return jnp.pad(outputs, ((0, 0), (margin, margin), (margin, margin), (0, 0)))

  def _blend(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    hole = examples.mask
    return (1 - hole) * examples.targets + hole * self._whole(outputs)
