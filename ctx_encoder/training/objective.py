"""The objective: the losses of generator and discriminator."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ctx_encoder import augment as augmentation
from ctx_encoder import config, losses
from ctx_encoder.training.task import Examples, View

Discriminate = Callable[[jax.Array], jax.Array]


class Game(NamedTuple):
  """The two sides of an adversarial loss, functions of logits."""

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
class Objective:
  """The losses of both networks.

  view: input and output of the generator.
  weights: of the terms "reconstruction", "adversarial", "style", "total_variation" and
    "seam": numbers, or functions of the step. Missing ones are 0. Without an
    adversarial weight the discriminator is not trained.
  reconstruction, adversarial: sections of the configuration.
  sees: the discriminator's input: the "completed" image, the generator's raw "output",
    or the raw centre "patch".
  windows: (kernel, stride, padding) of the discriminator's layers, for
    `adversarial.mask_aware`.
  style_features: images in [0, 1] to {layer: features}, for the style loss; None = the
    discriminator's features.
  """

  view: View
  weights: Mapping[str, losses.Weight]
  reconstruction: config.Reconstruction
  adversarial: config.Adversarial
  sees: str
  windows: tuple[tuple[int, int, str | int], ...] = ()
  style_features: losses.FeatureFunction | None = None

  @property
  def discriminator_size(self) -> int:
    """Side of the discriminator's input."""
    return discriminator_size(self.view, self.sees)

  def uses(self, term: str) -> bool:
    """Returns whether a loss term has a weight."""
    weight = self.weights.get(term, 0)
    return callable(weight) or weight > 0

  def fake_input(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns the discriminator's input for generated images, normalized."""
    if self.sees == "completed":
      return self.view.composite(outputs, examples)
    return outputs if self.sees == "patch" else self.view.predicted(outputs, examples)

  def real_input(self, examples: Examples) -> jax.Array:
    """Returns the discriminator's input for originals, normalized."""
    if self.sees == "patch":
      return augmentation.center_crop(examples.targets, self.view.output_size)
    return examples.targets

  def terms(
    self,
    outputs: jax.Array,
    examples: Examples,
    discriminator_features: losses.FeatureFunction,
  ) -> dict[str, Callable[[], jax.Array]]:
    """Returns the generator's loss terms except the adversarial one, unevaluated.

    Args:
      outputs: of the generator.
      examples: the batch.
      discriminator_features: normalized images to the discriminator's features.
    """
    view = self.view

    def style() -> jax.Array:
      completed = view.composite(outputs, examples)
      if self.style_features is None:
        return losses.style_loss(
          completed, examples.targets, features=discriminator_features
        )
      return losses.style_loss(
        examples.scale.restore(completed),
        examples.scale.restore(examples.targets),
        features=self.style_features,
      )

    terms = {
      "reconstruction": lambda: self.reconstruction_loss(outputs, examples),
      "style": style,
      "total_variation": lambda: losses.total_variation(
        view.composite(outputs, examples), examples.mask
      ),
      "seam": lambda: losses.seam_loss(
        view.composite(outputs, examples), examples.targets, examples.mask
      ),
    }
    return {name: term for name, term in terms.items() if self.uses(name)}

  def reconstruction_loss(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns the reconstruction loss of each example, `[B]`, on normalized values."""
    options, region, weights = self.reconstruction, examples.mask, None
    if options.overlap:
      region, weights = losses.overlap_weights(
        region, options.overlap, options.overlap_weight
      )
    if options.discount < 1:
      discounted = losses.discounted_weights(examples.mask, options.discount)
      weights = discounted if weights is None else weights * discounted
    return _NORMS[options.norm](
      self.view.predicted(outputs, examples),
      examples.targets,
      region,
      per=options.per,
      weights=weights,
    )

  def discriminator_loss(
    self, logits_real: jax.Array, logits_fake: jax.Array, examples: Examples
  ) -> jax.Array:
    """Returns the discriminator's loss of each example, `[B]`."""
    smoothing = self.adversarial.label_smoothing
    return GAMES[self.adversarial.game].discriminator(
      logits_real,
      logits_fake,
      fake=self._fake_patches(examples),
      **({"smoothing": smoothing} if smoothing else {}),
    )

  def generator_loss(self, logits_fake: jax.Array, examples: Examples) -> jax.Array:
    """Returns the generator's adversarial loss of each example, `[B]`."""
    return GAMES[self.adversarial.game].generator(
      logits_fake, fake=self._fake_patches(examples)
    )

  def penalties(
    self,
    discriminate: Discriminate,
    images_real: jax.Array,
    images_fake: jax.Array,
    key: jax.Array,
  ) -> dict[str, tuple[float, jax.Array]]:
    """Returns {name: (weight, mean)} of the penalties on the discriminator's slope.

    Args:
      discriminate: images to logits; one image must not influence another's logits.
      images_real, images_fake: the discriminator's inputs, normalized.
      key: PRNG key of the gradient penalty's points.
    """
    options, found = self.adversarial, {}
    if options.r1:
      penalty = losses.r1_penalty(discriminate, images_real)
      found["r1"] = options.r1, jnp.mean(penalty)
    if options.gradient_penalty:
      penalty = losses.gradient_penalty(discriminate, images_real, images_fake, key)
      found["gradient_penalty"] = options.gradient_penalty, jnp.mean(penalty)
    return found

  def _fake_patches(self, examples: Examples) -> jax.Array | None:
    if not self.adversarial.mask_aware:
      return None
    return losses.fake_patches(examples.mask, self.windows)


def discriminator_size(view: View, sees: str) -> int:
  """Returns the side of the discriminator's input; `sees` as in `Objective`."""
  return view.output_size if sees == "patch" else view.image_size
