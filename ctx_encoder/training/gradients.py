"""Gradients of both networks, sharing their forward passes."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ctx_encoder import losses, metrics
from ctx_encoder.models import patchgan
from ctx_encoder.training import keys
from ctx_encoder.training.diff_augment import diff_augment
from ctx_encoder.training.objective import Logits, Objective
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


class Shown(NamedTuple):
  """What the discriminator sees, and how to run it.

  real, fake: images, normalized; fake ones of the generator.
  mask: `[B, s, s, 1]`, 1 = hole, at the places of the images.
  pull: gradient of `fake` to that of the generator's outputs.
  """

  real: jax.Array
  fake: jax.Array
  mask: jax.Array
  pull: Callable[[jax.Array], jax.Array]


Seen = tuple[Logits, dict[str, jax.Array]]  # logits, and features where used


class Passes(NamedTuple):
  """The discriminator's forward passes in training mode, of separate batches.

  shown: the images.
  real, fake: logits, and the features of layers if the objective uses them.
  pull_real: gradient of `real` to (that of the parameters,).
  pull_fake: gradient of `fake` to those of the parameters and the fake images.
  batch_stats: running statistics after both.
  """

  shown: Shown
  real: Seen
  fake: Seen
  pull_real: Callable[[Seen], tuple[PyTree]]
  pull_fake: Callable[[Seen], tuple[PyTree, jax.Array]]
  batch_stats: PyTree


def generate(
  generator: Any, network: NetworkState, examples: Examples, drawn: jax.Array
) -> Generated:
  """Runs the generator in training mode.

  Args:
    generator: Flax module.
    network: its state.
    examples: the batch.
    drawn: `[B]` PRNG keys, for dropout and noise.
  """

  def apply(params):
    outputs, changed = generator.apply(
      {"params": params, "batch_stats": network.batch_stats},
      examples.inputs,
      train=True,
      keys=drawn,
      mutable=["batch_stats"],
    )
    return outputs, changed.get("batch_stats", {})

  outputs, pullback, batch_stats = jax.vjp(apply, network.params, has_aux=True)
  return Generated(outputs, batch_stats, pullback)


def show(
  objective: Objective,
  examples: Examples,
  outputs: jax.Array,
  key: jax.Array,
  position: jax.Array,
) -> Shown:
  """Returns the discriminator's inputs, augmented if the configuration says so.

  Args:
    objective: the losses.
    examples: the batch.
    outputs: of the generator.
    key: PRNG key of the step.
    position: `[B]` positions of the examples in the global batch.
  """
  real, mask = objective.real_input(examples), objective.shown_mask(examples)
  of_images = of_masks = lambda x: x
  if kinds := objective.adversarial.diff_augment:
    key = keys.stream(key, "diff_augment")
    side = real.shape[1]
    of_images, of_masks = diff_augment(key, position, side, kinds.split(","))
  fake, pull = jax.vjp(lambda y: of_images(objective.fake_input(y, examples)), outputs)
  return Shown(of_images(real), fake, of_masks(mask), lambda x: pull(x)[0])


def discriminate(
  discriminator: Any, network: NetworkState, shown: Shown, objective: Objective
) -> Passes:
  """Runs the discriminator on the real images and on the fake ones.

  Args:
    discriminator: Flax module.
    network: its state.
    shown: its inputs.
    objective: the losses.
  """
  features = {"features": True} if objective.uses("feature_matching") else {}

  def run(params, stats, images):
    found, changed = discriminator.apply(
      {"params": params, "batch_stats": stats},
      images,
      *_conditions(discriminator, shown.mask),
      train=True,
      mutable=["batch_stats"],
      **features,
    )
    return found if features else (found, {}), changed.get("batch_stats", {})

  params, stats = network.params, network.batch_stats
  real, pull_real, stats = jax.vjp(
    lambda p: run(p, stats, shown.real), params, has_aux=True
  )
  fake, pull_fake, stats = jax.vjp(
    lambda p, x: run(p, stats, x), params, shown.fake, has_aux=True
  )
  return Passes(shown, real, fake, pull_real, pull_fake, stats)


def discriminator_grads(
  discriminator: Any,
  network: NetworkState,
  objective: Objective,
  passes: Passes,
  key: jax.Array,
  step: jax.Array,
) -> tuple[PyTree, Metrics]:
  """Differentiates the discriminator's loss with respect to its parameters.

  The fake images are constants.

  Args:
    discriminator: Flax module.
    network: its state.
    objective: the losses.
    passes: its forward passes.
    key: PRNG key of the step.
    step: number of steps so far.
  """

  mask = passes.shown.mask

  def loss_of(logits_real, logits_fake):
    return jnp.mean(objective.discriminator_loss(logits_real, logits_fake, mask))

  (logits_real, layers), (logits_fake, _) = passes.real, passes.fake
  nothing = jax.tree.map(jnp.zeros_like, layers)
  loss, (to_real, to_fake) = jax.value_and_grad(loss_of, (0, 1))(
    logits_real, logits_fake
  )
  (grads_real,) = passes.pull_real((to_real, nothing))
  grads_fake, _ = passes.pull_fake((to_fake, nothing))
  grads = jax.tree.map(jnp.add, grads_real, grads_fake)
  measured = {"loss/discriminator": loss}
  if objective.adversarial.r1 or objective.adversarial.gradient_penalty:
    slopes, means = _penalty_grads(
      discriminator, network, objective, passes.shown, key, step
    )
    grads = jax.tree.map(jnp.add, grads, slopes)
    measured |= means
  for name, logits in (
    ("real", patchgan.joined(logits_real)),
    ("fake", patchgan.joined(logits_fake)),
  ):
    if objective.adversarial.game == "bce":
      measured[f"probability/{name}"] = jnp.mean(jax.nn.sigmoid(logits))
    else:  # logits of no probability
      measured[f"logits/{name}"] = jnp.mean(logits)
  return grads, measured


def _penalty_grads(
  discriminator, network, objective, shown, key, step
) -> tuple[PyTree, Metrics]:
  """Differentiates the penalties on the discriminator's slope.

  The discriminator uses its running statistics, with which one image does not influence
  the logits of another.
  """

  def total(params):
    variables = {"params": params, "batch_stats": network.batch_stats}
    conditions = _conditions(discriminator, shown.mask)
    found = objective.penalties(
      lambda x: discriminator.apply(variables, x, *conditions, train=False),
      shown.real,
      shown.fake,
      keys.stream(key, "penalty"),
      step,
    )
    means = {f"loss/{name}": mean for name, (_, mean) in found.items()}
    return sum(weight * mean for weight, mean in found.values()), means

  return jax.grad(total, has_aux=True)(network.params)


def generator_grads(
  generated: Generated,
  objective: Objective,
  examples: Examples,
  step: jax.Array,
  discriminator_features: losses.FeatureFunction,
  passes: Passes | None = None,
  *,
  norms: bool = False,
) -> tuple[PyTree, Metrics]:
  """Differentiates the generator's loss with respect to its parameters.

  The discriminator's parameters are constants.

  Args:
    generated: the forward pass.
    objective: the losses.
    examples: the batch.
    step: number of steps so far, for weights that are functions of it.
    discriminator_features: normalized images to the discriminator's features.
    passes: the discriminator's forward passes; None = without a game.
    norms: whether to measure "grad_norm/output/<term>": the norm of the weighted
      term's gradient by an image's output, averaged over the images.
  """

  def terms_of(outputs, seen):
    terms = objective.terms(outputs, examples, discriminator_features)
    if passes:
      (logits, layers), real, mask = seen, passes.real[1], passes.shown.mask
      terms["adversarial"] = lambda: objective.generator_loss(logits, mask)
      if layers:
        matching = functools.partial(objective.feature_matching, layers, real, mask)
        terms["feature_matching"] = matching
    return terms

  def total_of(outputs, seen):
    return losses.combine(terms_of(outputs, seen), objective.weights, step)

  def pulled(to_outputs, to_seen):
    if passes:
      to_outputs += passes.shown.pull(passes.pull_fake(to_seen)[1])
    return to_outputs

  inputs = generated.outputs, passes.fake if passes else None
  differentiate = jax.value_and_grad(total_of, (0, 1), has_aux=True)
  (total, measured), slopes = differentiate(*inputs)
  (grads,) = generated.pullback(pulled(*slopes))
  for name in terms_of(*inputs) if norms else ():
    own = {name: objective.weights[name]}

    def weighted(outputs, seen, name=name, own=own):
      return losses.combine({name: terms_of(outputs, seen)[name]}, own, step)[0]

    slope = pulled(*jax.grad(weighted, (0, 1))(*inputs))
    norm = jnp.sqrt(jnp.sum(jnp.square(slope), axis=(1, 2, 3)))
    measured[f"grad_norm/output/{name}"] = jnp.sum(norm)  # losses are means over images
  originals = examples.scale.restore(examples.targets)
  completed = objective.view.completed(generated.outputs, examples)
  psnr = metrics.psnr(completed, originals, examples.mask)
  return grads, measured | {"loss/total": total, "psnr_hole": jnp.mean(psnr)}


def features(
  discriminator: Any, network: NetworkState, mask: jax.Array
) -> losses.FeatureFunction:
  """Returns the function from normalized images to the discriminator's features."""

  def of(images):
    (_, found), _ = discriminator.apply(
      network.variables,
      images,
      *_conditions(discriminator, mask),
      train=True,
      features=True,
      mutable=["batch_stats"],
    )
    return found

  return of


def _conditions(discriminator: Any, mask: jax.Array) -> tuple[jax.Array, ...]:
  """Returns what the discriminator is called with besides images."""
  return (mask,) if getattr(discriminator, "mask_input", False) else ()
