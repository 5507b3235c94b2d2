"""Gradients of both networks, sharing their forward passes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ctx_encoder import losses, metrics
from ctx_encoder.training.objective import Objective
from ctx_encoder.training.state import NetworkState, PyTree
from ctx_encoder.training.task import Examples

Metrics = dict[str, jax.Array]


class Generated(NamedTuple):
  """The generator's forward pass.

  pullback: gradient of the outputs to (gradient of the parameters,).
  """

  outputs: jax.Array
  batch_stats: PyTree
  pullback: Callable[[jax.Array], tuple[PyTree]]


class DiscriminatorGrads(NamedTuple):
  """The discriminator's gradient, and its forward pass of the fake images.

  pullback: gradient of `logits_fake` to the gradient of the fake images.
  """

  grads: PyTree
  batch_stats: PyTree
  logits_fake: jax.Array
  pullback: Callable[[jax.Array], jax.Array]
  metrics: Metrics


def generate(
  generator: Any, network: NetworkState, examples: Examples, keys: jax.Array
) -> Generated:
  """Runs the generator in training mode.

  Args:
    generator: Flax module.
    network: its state.
    examples: the batch.
    keys: `[B]` PRNG keys, for dropout and noise.
  """

  def apply(params):
    outputs, changed = generator.apply(
      {"params": params, "batch_stats": network.batch_stats},
      examples.inputs,
      train=True,
      keys=keys,
      mutable=["batch_stats"],
    )
    return outputs, changed.get("batch_stats", {})

  outputs, pullback, batch_stats = jax.vjp(apply, network.params, has_aux=True)
  return Generated(outputs, batch_stats, pullback)


def discriminator_grads(
  discriminator: Any,
  network: NetworkState,
  objective: Objective,
  examples: Examples,
  images_fake: jax.Array,
  key: jax.Array,
) -> DiscriminatorGrads:
  """Differentiates the discriminator's loss with respect to its parameters.

  Real and fake images pass as separate batches. The fake images are constants.

  Args:
    discriminator: Flax module.
    network: its state.
    objective: the losses.
    examples: the batch.
    images_fake: the discriminator's input for generated images.
    key: PRNG key of the gradient penalty.
  """
  params, stats = network.params, network.batch_stats
  images_real = objective.real_input(examples)
  logits_real, pull_real, stats = jax.vjp(
    lambda p: _logits(discriminator, p, stats, images_real), params, has_aux=True
  )
  logits_fake, pull_fake, stats = jax.vjp(
    lambda p, x: _logits(discriminator, p, stats, x), params, images_fake, has_aux=True
  )

  def loss_of(logits_real, logits_fake):
    return jnp.mean(objective.discriminator_loss(logits_real, logits_fake, examples))

  loss, (to_real, to_fake) = jax.value_and_grad(loss_of, (0, 1))(
    logits_real, logits_fake
  )
  (grads_real,), (grads_fake, _) = pull_real(to_real), pull_fake(to_fake)
  grads = jax.tree.map(jnp.add, grads_real, grads_fake)
  measured = {"loss/discriminator": loss}

  if objective.adversarial.r1 or objective.adversarial.gradient_penalty:
    slopes, means = _penalty_grads(
      discriminator, network, objective, images_real, images_fake, key
    )
    grads = jax.tree.map(jnp.add, grads, slopes)
    measured |= means
  for name, logits in (("real", logits_real), ("fake", logits_fake)):
    if objective.adversarial.game == "bce":
      measured[f"probability/{name}"] = jnp.mean(jax.nn.sigmoid(logits))
    else:  # logits of no probability
      measured[f"logits/{name}"] = jnp.mean(logits)
  return DiscriminatorGrads(
    grads, stats, logits_fake, lambda to_logits: pull_fake(to_logits)[1], measured
  )


def _penalty_grads(
  discriminator, network, objective, images_real, images_fake, key
) -> tuple[PyTree, Metrics]:
  """Differentiates the penalties on the discriminator's slope.

  The discriminator uses its running statistics, with which one image does not influence
  the logits of another.
  """

  def total(params):
    variables = {"params": params, "batch_stats": network.batch_stats}
    found = objective.penalties(
      lambda x: discriminator.apply(variables, x, train=False),
      images_real,
      images_fake,
      key,
    )
    means = {f"loss/{name}": mean for name, (_, mean) in found.items()}
    return sum(weight * mean for weight, mean in found.values()), means

  return jax.grad(total, has_aux=True)(network.params)


def fake_logits(
  discriminator: Any, network: NetworkState, images_fake: jax.Array
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
  """Returns the logits of fake images, and the pullback from them to the images."""
  logits, pullback, _ = jax.vjp(
    lambda x: _logits(discriminator, network.params, network.batch_stats, x),
    images_fake,
    has_aux=True,
  )
  return logits, lambda to_logits: pullback(to_logits)[0]


def generator_grads(
  generated: Generated,
  objective: Objective,
  examples: Examples,
  step: jax.Array,
  discriminator_features: losses.FeatureFunction,
  logits_fake: jax.Array | None = None,
  pull_logits: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[PyTree, Metrics]:
  """Differentiates the generator's loss with respect to its parameters.

  The discriminator's parameters are constants.

  Args:
    generated: the forward pass.
    objective: the losses.
    examples: the batch.
    step: number of steps so far, for weights that are functions of it.
    discriminator_features: normalized images to the discriminator's features.
    logits_fake: of the completed images; None = without the adversarial loss.
    pull_logits: gradient of the logits to the gradient of the generator's outputs.
  """

  def total_of(outputs, logits):
    terms = objective.terms(outputs, examples, discriminator_features)
    if logits is not None:
      terms["adversarial"] = lambda: objective.generator_loss(logits, examples)
    return losses.combine(terms, objective.weights, step)

  (total, terms), (to_outputs, to_logits) = jax.value_and_grad(
    total_of, argnums=(0, 1), has_aux=True
  )(generated.outputs, logits_fake)
  if pull_logits is not None:
    to_outputs += pull_logits(to_logits)
  (grads,) = generated.pullback(to_outputs)
  originals = examples.scale.restore(examples.targets)
  completed = objective.view.completed(generated.outputs, examples)
  psnr = metrics.psnr(completed, originals, examples.mask)
  return grads, terms | {"loss/total": total, "psnr_hole": jnp.mean(psnr)}


def features(discriminator: Any, network: NetworkState) -> losses.FeatureFunction:
  """Returns the function from normalized images to the discriminator's features."""

  def of(images):
    (_, found), _ = discriminator.apply(
      network.variables, images, train=True, features=True, mutable=["batch_stats"]
    )
    return found

  return of


def _logits(discriminator, params, batch_stats, images):
  logits, changed = discriminator.apply(
    {"params": params, "batch_stats": batch_stats},
    images,
    train=True,
    mutable=["batch_stats"],
  )
  return logits, changed.get("batch_stats", {})
