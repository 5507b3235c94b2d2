"""A run's parts: networks, losses, holes, augmentation and update rules."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from ctx_encoder import masks
from ctx_encoder.augment import Augment
from ctx_encoder.config import Config
from ctx_encoder.models import precision
from ctx_encoder.training.objective import Objective
from ctx_encoder.training.state import NetworkState, PyTree, TrainState
from ctx_encoder.training.task import View


class Optimizers(NamedTuple):
  """The update rules."""

  generator: optax.GradientTransformation
  discriminator: optax.GradientTransformation


@dataclasses.dataclass(frozen=True)
class Run:
  """Everything that is trained and how, except the images. `training.run` makes one.

  Any part can be replaced with `dataclasses.replace`.

  Attributes:
    config: what the loop reads: lengths, batch size, intervals. It is saved too.
    generator: a Flax module, `__call__(x, *, train, keys)` from `[B, S, S, C]` to
      `[B, S', S', 3]`, normalized. `keys` is one PRNG key an example, for dropout and
      noise. It may keep running statistics in "batch_stats".
    discriminator: a Flax module, `__call__(x, *, train)` from `[B, S, S, 3]` to logits
      `[B, ...]`; with `features=True` to (logits, {layer: features}). If its attribute
      `mask_input` is true, it is called with (x, mask), mask `[B, S, S, 1]`.
    objective: losses, and the view of the generator.
    sample_mask: PRNG key to mask, see `masks.make_sampler`.
    augment: (PRNG key, image) to image, see `augment.make_augment`.
    optimizers: (generator, number of steps of the run) to update rules.
    encoder_params: returns initial parameters of the generator's "encoder", or None.
  """

  config: Config
  generator: nn.Module
  discriminator: nn.Module
  objective: Objective
  sample_mask: masks.Sampler
  augment: Augment
  optimizers: Callable[[Any, int], Optimizers]
  encoder_params: Callable[[], PyTree | None] = lambda: None

  @property
  def view(self) -> View:
    return self.objective.view

  def init(self, key: jax.Array, optimizers: Optimizers) -> TrainState:
    """Returns the state before the first step, with random weights.

    Args:
      key: PRNG key of the weights.
      optimizers: the update rules.
    """
    return init_state(
      key,
      self.generator,
      self.discriminator,
      optimizers,
      self.view,
      discriminator_size=self.objective.discriminator_size,
      average=self.config.ema_decay > 0,
    )

  def in_float32(self) -> "Run":
    """Returns the run with networks in float32: itself if they are that already."""
    if self.config.model.dtype == "float32":
      return self
    return self._with(precision.in_float32)

  def over_axis(self, axis_name: str) -> "Run":
    """Returns the run with batch statistics averaged over an axis of `jax.pmap`."""
    return self._with(lambda x: precision.with_settings(x, axis_name=axis_name))

  def _with(self, change: Callable[[Any], Any]) -> "Run":
    networks = change(self.generator), change(self.discriminator)
    return dataclasses.replace(self, generator=networks[0], discriminator=networks[1])


def init_state(
  key: jax.Array,
  generator: Any,
  discriminator: Any,
  optimizers: Optimizers,
  view: View,
  *,
  discriminator_size: int,
  average: bool,
) -> TrainState:
  """Returns the state before the first step.

  Args:
    key: PRNG key of the weights.
    generator, discriminator: Flax modules.
    optimizers: the update rules.
    view: input of the generator.
    discriminator_size: side of the discriminator's input.
    average: whether to keep a moving average of the generator.
  """
  generator_key, discriminator_key, example_key = jax.random.split(key, 3)
  size = discriminator_size
  drawn = init_generator(generator, view, generator_key, example_key)
  shown = [jnp.zeros((1, size, size, 3))]
  if getattr(discriminator, "mask_input", False):
    shown.append(jnp.zeros((1, size, size, 1)))
  drawn_discriminator = discriminator.init(discriminator_key, *shown)
  network = _network_state(drawn, optimizers.generator)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    updates=jnp.zeros((), jnp.int32),
    generator=network,
    discriminator=_network_state(drawn_discriminator, optimizers.discriminator),
    # A copy, since the step donates the state and no buffer can be donated twice.
    average=jax.tree.map(jnp.copy, network.params) if average else None,
  )


def init_generator(
  generator: Any, view: View, key: jax.Array, example_key: jax.Array
) -> PyTree:
  """Returns the initial variables of a generator.

  Args:
    generator: Flax module.
    view: its input.
    key: PRNG key of the weights.
    example_key: PRNG key of one example, for noise.
  """
  inputs = jnp.zeros((1, view.image_size, view.image_size, view.channels))
  return generator.init(key, inputs, keys=example_key[None])


def _network_state(variables, optimizer) -> NetworkState:
  params = variables["params"]
  stats = variables.get("batch_stats", {})
  return NetworkState(params, stats, optimizer.init(params))
