"""What a generator is asked for: the hole, what it sees, and how it is judged."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

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


class Game(NamedTuple):
  """The two sides of an adversarial loss, on logits."""

  discriminator: Callable[..., jax.Array]
  generator: Callable[..., jax.Array]


GAMES = {
  "bce": Game(losses.bce_discriminator_loss, losses.bce_generator_loss),
  "least_squares": Game(
    losses.least_squares_discriminator_loss, losses.least_squares_generator_loss
  ),
  "hinge": Game(losses.hinge_discriminator_loss, losses.hinge_generator_loss),
  "wasserstein": Game(
    losses.wasserstein_discriminator_loss, losses.wasserstein_generator_loss
  ),
}

_NORMS = {
  "l2": losses.masked_l2,
  "l1": losses.masked_l1,
  "charbonnier": losses.masked_charbonnier,
}


@dataclasses.dataclass(frozen=True)
class Task:
  """What the generator is asked for, and how its answer is judged.

  image_size: side of the generator's input.
  sample_mask: PRNG key to mask, see `masks.make_sampler`.
  augment: (PRNG key, image) to image, see `augment.make_augment`.
  fill: colour of the hole, RGB in [0, 1]; None = `masks.smooth_fill`.
  normalization: see `pixels.scale_of`.
  mask_channel: whether the generator sees the mask as a fourth channel.
  predict: "image", "patch" for the centre half alone, or "residual" for what is to be
    added to the input.
  sees: what the discriminator is shown: the "completed" image, the generator's raw
    "output", or the raw centre "patch".
  norm, per: "l2", "l1" or "charbonnier" error, divided by the size of the "hole" or
    the "image".
  overlap: pixels around the hole that are predicted too; their error counts
    `overlap_weight` times.
  discount: the error of a pixel counts this to the power of its distance from the
    hole's border; 1 = all count the same.
  game: a key of `GAMES`.
  label_smoothing: real images are labelled 1 minus this.
  discriminator_windows: (kernel, stride, padding) of the discriminator's layers, if
    only patches that see something of the hole shall count as fake.
  r1: factor of the penalty on the discriminator's slope at real images; 0 = none.
  style_features: images in [0, 1] to `{layer: features}`, what the style is measured
    on; None = the discriminator's own features.
  loss_weights: factors, or functions of the step, of the terms "reconstruction",
    "adversarial", "style", "total_variation" and "seam"; those that are not named are
    0. Where the adversarial one is 0 the discriminator is not trained.
  """

  image_size: int
  sample_mask: masks.Sampler
  augment: augmentation.Augment
  fill: tuple[float, float, float] | None = (0.0, 0.0, 0.0)
  normalization: str = "symmetric"
  mask_channel: bool = False
  predict: str = "image"
  sees: str = "completed"
  norm: str = "l2"
  per: str = "hole"
  overlap: int = 0
  overlap_weight: float = 10.0
  discount: float = 1.0
  game: str = "bce"
  label_smoothing: float = 0.0
  discriminator_windows: tuple[tuple[int, int, str | int], ...] | None = None
  r1: float = 0.0
  style_features: losses.FeatureFunction | None = None
  loss_weights: Mapping[str, losses.Weight] = dataclasses.field(
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
    inputs = scale.normalize(self.masked(images, mask))
    if self.mask_channel:
      inputs = jnp.concatenate([inputs, mask], axis=3)
    return Examples(mask, scale.normalize(images), inputs, scale)

  def masked(self, images: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns images in [0, 1] whose holes are filled."""
    fill = None if self.fill is None else jnp.asarray(self.fill)
    return masks.masked_image(images, mask, fill)

  def completed(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns the completed images `[B, S, S, 3]` in [0, 1]."""
    return examples.scale.restore(self._blend(outputs, examples))

  def judged(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns what the discriminator sees of the generator's work, normalised."""
    if self.sees == "completed":
      return self._blend(outputs, examples)
    return outputs if self.sees == "patch" else self._whole(outputs, examples)

  def judged_real(self, examples: Examples) -> jax.Array:
    """Returns what the discriminator sees of the originals, normalised."""
    if self.sees == "patch":
      return augmentation.center_crop(examples.targets, self.output_size)
    return examples.targets

  def uses(self, term: str) -> bool:
    """Returns whether a loss term has a weight."""
    weight = self.loss_weights.get(term, 0)
    return callable(weight) or weight > 0

  def terms(
    self,
    outputs: jax.Array,
    examples: Examples,
    judge_features: losses.FeatureFunction,
  ) -> dict[str, Callable[[], jax.Array]]:
    """Returns the generator's loss terms but the adversarial one, to be computed.

    Args:
      outputs: the generator's.
      examples: what it was given.
      judge_features: normalised images to the discriminator's features of them.
    """

    def style() -> jax.Array:
      completed = self._blend(outputs, examples)
      if self.style_features is None:
        return losses.style_loss(completed, examples.targets, features=judge_features)
      return losses.style_loss(
        examples.scale.restore(completed),
        examples.scale.restore(examples.targets),
        features=self.style_features,
      )

    terms = {
      "reconstruction": lambda: self.reconstruction(outputs, examples),
      "style": style,
      "total_variation": lambda: losses.total_variation(
        self._blend(outputs, examples), examples.mask
      ),
      "seam": lambda: losses.seam_loss(
        self._blend(outputs, examples), examples.targets, examples.mask
      ),
    }
    return {name: term for name, term in terms.items() if self.uses(name)}

  def reconstruction(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns the reconstruction error of each example, `[B]`, on normalised values."""
    region, weights = examples.mask, None
    if self.overlap:
      region, weights = losses.overlap_weights(
        region, self.overlap, self.overlap_weight
      )
    if self.discount < 1:
      discounted = losses.discounted_weights(examples.mask, self.discount)
      weights = discounted if weights is None else weights * discounted
    return _NORMS[self.norm](
      self._whole(outputs, examples),
      examples.targets,
      region,
      per=self.per,
      weights=weights,
    )

  def discriminator_loss(
    self, logits_real: jax.Array, logits_fake: jax.Array, examples: Examples
  ) -> jax.Array:
    """Returns the discriminator's loss of each example, `[B]`."""
    options = {"smoothing": self.label_smoothing} if self.label_smoothing else {}
    return GAMES[self.game].discriminator(
      logits_real, logits_fake, fake=self._fake(examples), **options
    )

  def generator_loss(self, logits_fake: jax.Array, examples: Examples) -> jax.Array:
    """Returns the generator's adversarial loss of each example, `[B]`."""
    return GAMES[self.game].generator(logits_fake, fake=self._fake(examples))

  def _fake(self, examples: Examples) -> jax.Array | None:
    if self.discriminator_windows is None:
      return None
    mask = examples.mask
    if self.sees == "patch":
      mask = augmentation.center_crop(mask, self.output_size)
    return losses.fake_patches(mask, self.discriminator_windows)

  def _whole(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns the image that was predicted; around a patch it is empty."""
    if self.predict == "image":
      return outputs
    if self.predict == "residual":
      return examples.inputs[..., :3] + outputs
    margin = (self.image_size - outputs.shape[1]) // 2
    return jnp.pad(outputs, ((0, 0), (margin, margin), (margin, margin), (0, 0)))

  def _blend(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    hole = examples.mask
    return (1 - hole) * examples.targets + hole * self._whole(outputs, examples)
