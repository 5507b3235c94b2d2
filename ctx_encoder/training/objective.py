"""The objective: the losses of generator and discriminator."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ctx_encoder import augment as augmentation
from ctx_encoder import config, losses, pixels
from ctx_encoder.losses.reconstruction import divisor
from ctx_encoder.models import patchgan
from ctx_encoder.training.task import Examples, View

Logits = jax.Array | tuple[jax.Array, ...]  # a tuple for several scales
Discriminate = Callable[[jax.Array], Logits]
Distance = Callable[[jax.Array, jax.Array], jax.Array]  # of images in [0, 1], `[B]`


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

_LEAST_MAGNITUDE = 0.05  # of a layer, for `adversarial.matching=hole`


@dataclasses.dataclass(frozen=True)
class Objective:
  """The losses of both networks.

  view: input and output of the generator.
  weights: of the terms, by the names in `config.loss_weights`: numbers, or functions
    of the step. Missing ones are 0. Without an adversarial weight the discriminator is
    not trained.
  reconstruction, adversarial: sections of the configuration.
  sees: the discriminator's input: the "completed" image, the generator's raw "output",
    or the raw centre "patch".
  windows: (kernel, stride, padding) of the discriminator's layers, for
    `adversarial.mask_aware`.
  style_features: images in [0, 1] to {layer: features}, for the style loss; None = the
    discriminator's features.
  content: the content loss; None where it has no weight.
  """

  view: View
  weights: Mapping[str, losses.Weight]
  reconstruction: config.Reconstruction
  adversarial: config.Adversarial
  sees: str
  windows: tuple[tuple[int, int, str | int], ...] = ()
  style_features: losses.FeatureFunction | None = None
  content: Distance | None = None

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

  def shown_mask(self, examples: Examples) -> jax.Array:
    """Returns the mask at the places of the discriminator's input, `[B, s, s, 1]`."""
    if self.sees == "patch":
      return augmentation.center_crop(examples.mask, self.view.output_size)
    return examples.mask

  def terms(
    self,
    outputs: jax.Array,
    examples: Examples,
    discriminator_features: losses.FeatureFunction,
  ) -> dict[str, Callable[[], jax.Array]]:
    """Returns the generator's loss terms without a game, unevaluated.

    Args:
      outputs: of the generator.
      examples: the batch.
      discriminator_features: normalized images to the discriminator's features.
    """
    view = self.view

    def completed() -> jax.Array:
      return view.composite(outputs, examples)

    def on_images(distance: Distance) -> jax.Array:
      return distance(*map(examples.scale.restore, (completed(), examples.targets)))

    def style() -> jax.Array:
      if self.style_features is None:
        return losses.style_loss(
          completed(), examples.targets, features=discriminator_features
        )
      return on_images(
        functools.partial(losses.style_loss, features=self.style_features)
      )

    def content() -> jax.Array:
      if self.content is None:
        raise ValueError("The weight of 'content' needs Objective.content.")
      return on_images(self.content)

    terms = {
      "reconstruction": lambda: self.reconstruction_loss(outputs, examples),
      "known": lambda: _NORMS[self.reconstruction.norm](
        view.predicted(outputs, examples), examples.targets, 1 - examples.mask
      ),
      "content": content,
      "style": style,
      "total_variation": lambda: losses.total_variation(completed(), examples.mask),
      "seam": lambda: losses.seam_loss(completed(), examples.targets, examples.mask),
      "grid": lambda: losses.grid_loss(
        examples.scale.restore(completed()), examples.mask
      ),
    }
    return {name: term for name, term in terms.items() if self.uses(name)}

  def reconstruction_loss(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns the reconstruction loss of each example, `[B]`, on normalized values."""
    options, region, weights = self.reconstruction, examples.mask, None
    if options.pool > 1:
      return self._pooled_loss(outputs, examples)
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

  def _pooled_loss(self, outputs: jax.Array, examples: Examples) -> jax.Array:
    """Returns the loss of means of squares, which count as much as their pixels."""
    options = self.reconstruction

    def pooled(x: jax.Array) -> jax.Array:
      batch, height, _, channels = x.shape
      shape = batch, height // options.pool, options.pool, -1, options.pool, channels
      return jnp.mean(x.reshape(shape), axis=(2, 4))

    completed = self.view.composite(outputs, examples)
    total = _NORMS[options.norm](
      pooled(completed),
      pooled(examples.targets),
      jnp.ceil(pooled(examples.mask)),
      per="sum",
    )
    size = divisor(examples.mask, options.per, completed.shape[3])
    return options.pool**2 * total / size

  def discriminator_loss(
    self, logits_real: Logits, logits_fake: Logits, mask: jax.Array
  ) -> jax.Array:
    """Returns the discriminator's loss of each example, `[B]`, summed over scales.

    Args:
      logits_real, logits_fake: of the discriminator.
      mask: see `shown_mask`.
    """
    smoothing = self.adversarial.label_smoothing
    loss = functools.partial(
      GAMES[self.adversarial.game].discriminator,
      **({"smoothing": smoothing} if smoothing else {}),
    )
    pairs = zip(_scales(logits_real), _scales(logits_fake), strict=True)
    each = [self._over_patches(loss, mask, *pair) for pair in pairs]
    return functools.reduce(jnp.add, each)

  def generator_loss(self, logits_fake: Logits, mask: jax.Array) -> jax.Array:
    """Returns the generator's adversarial loss of each example; see above.

    A scale has `adversarial.scale_weight` times the weight of the one before.
    """
    loss = GAMES[self.adversarial.game].generator
    each = (self._over_patches(loss, mask, logits) for logits in _scales(logits_fake))
    return self._weighted_scales(each)

  def _weighted_scales(self, terms: Iterable[jax.Array]) -> jax.Array:
    weight = self.adversarial.scale_weight
    weighted = [weight**n * term if n else term for n, term in enumerate(terms)]
    return functools.reduce(jnp.add, weighted)

  def _over_patches(self, loss, mask: jax.Array, *logits: jax.Array) -> jax.Array:
    if self.adversarial.patches == "all":
      return loss(*logits, fake=self._fake_patches(mask))
    each = loss(*(x.reshape(-1, 1) for x in logits)).reshape(logits[0].shape)
    share = pixels.resize(mask, each.shape)
    total = jnp.sum(share, (1, 2, 3))
    return jnp.sum(share * each, (1, 2, 3)) / jnp.where(total > 0, total, 1)

  def feature_matching(
    self,
    features_fake: Mapping[str, jax.Array],
    features_real: Mapping[str, jax.Array],
    mask: jax.Array,
  ) -> jax.Array:
    """Returns the distance of the discriminator's features, `[B]`.

    A scale has `adversarial.scale_weight` times the weight of the one before.

    Args:
      features_fake, features_real: {layer: features}; layers of several scales are
        named scale/layer.
      mask: see `shown_mask`.
    """
    scales: dict[str, list[str]] = {}
    for name in features_real:
      scales.setdefault(name.rpartition("/")[0], []).append(name)
    return self._weighted_scales(
      self._matching(
        {name: features_fake[name] for name in names},
        {name: features_real[name] for name in names},
        mask,
      )
      for names in scales.values()
    )

  def _matching(
    self, fake: dict[str, jax.Array], real: dict[str, jax.Array], mask: jax.Array
  ) -> jax.Array:
    """Returns the distance of the features of one scale."""
    if self.adversarial.matching != "hole":
      known = mask if self.adversarial.matching == "known" else None
      return losses.feature_matching(fake, real, mask=known)
    for name, features in real.items():
      size = jnp.mean(jnp.abs(features.astype(jnp.float32)), (1, 2, 3), keepdims=True)
      size = jnp.maximum(size, _LEAST_MAGNITUDE)
      fake[name], real[name] = fake[name] / size, features / size
    share = jnp.maximum(jnp.mean(mask, (1, 2, 3)), 1 / mask[0].size)
    return losses.feature_matching(fake, real, mask=1 - mask) / share

  def penalties(
    self,
    discriminate: Discriminate,
    images_real: jax.Array,
    images_fake: jax.Array,
    key: jax.Array,
    step: jax.Array,
  ) -> dict[str, tuple[float, jax.Array]]:
    """Returns {name: (weight, mean)} of the penalties on the discriminator's slope.

    Args:
      discriminate: images to logits; one image must not influence another's logits.
      images_real, images_fake: the discriminator's inputs, normalized.
      key: PRNG key of the gradient penalty's points.
      step: number of steps so far, for `adversarial.r1_every`.
    """
    options, found = self.adversarial, {}

    def score(images: jax.Array) -> jax.Array:
      return patchgan.joined(discriminate(images))

    if options.r1:
      r1 = functools.partial(losses.r1_penalty, score, images_real)
      every = options.r1_every
      penalty = r1() if every == 1 else losses.lazy_penalty(r1, step, every)
      found["r1"] = options.r1, jnp.mean(penalty)
    if options.gradient_penalty:
      penalty = losses.gradient_penalty(score, images_real, images_fake, key)
      found["gradient_penalty"] = options.gradient_penalty, jnp.mean(penalty)
    return found

  def _fake_patches(self, mask: jax.Array) -> jax.Array | None:
    return (
      losses.fake_patches(mask, self.windows) if self.adversarial.mask_aware else None
    )


def _scales(logits: Logits) -> tuple[jax.Array, ...]:
  return logits if isinstance(logits, tuple) else (logits,)


def discriminator_size(view: View, sees: str) -> int:
  """Returns the side of the discriminator's input; `sees` as in `Objective`."""
  return view.output_size if sees == "patch" else view.image_size
