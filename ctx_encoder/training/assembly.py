"""From a configuration to the parts of a run."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ctx_encoder import losses, masks
from ctx_encoder.augment import make_augment
from ctx_encoder.config import Config, Optimizer
from ctx_encoder.data.silhouettes import region_silhouettes
from ctx_encoder.models import (
  GENERATORS,
  VGG,
  Landscape,
  PatchGAN,
  Settings,
  feature_function,
  patchgan,
  pretrained,
  weights,
)
from ctx_encoder.models.feature_nets import random_filters
from ctx_encoder.training.objective import Objective
from ctx_encoder.training.optimizer import restrict
from ctx_encoder.training.setup import Optimizers, Run
from ctx_encoder.training.state import PyTree
from ctx_encoder.training.task import View

GREY = (127.5, 127.5, 127.5)


def run(config: Config, *, mean_color: Sequence[float] = GREY) -> Run:
  """Assembles everything that a validated configuration describes, except the images.

  Args:
    config: see `ctx_encoder.config`.
    mean_color: the data set's mean colour, in [0, 255], for masks.fill=mean.
      `training.fit` sets it from the images.

  Raises:
    ValueError: a weight file or silhouettes cannot be read, or weights are of another
      network.
    OSError: a weight file cannot be opened.
  """
  return Run(
    config=config,
    generator=generator(config),
    discriminator=discriminator(config),
    objective=objective(config, view(config, mean_color)),
    sample_mask=mask_sampler(config),
    augment=make_augment(image_size=config.data.image_size, **vars(config.augment)),
    optimizers=functools.partial(optimizers, config),
    encoder_params=functools.partial(encoder_params, config),
  )


def generator(config: Config) -> Any:
  """Returns the generator that a configuration describes, a Flax module."""
  model, size = config.model, config.data.image_size
  if model.generator == "landscape":
    return Landscape.of_width(model.width, jnp.dtype(model.dtype))
  settings = Settings(
    width=model.width,
    dropout=model.dropout,
    init=model.init,
    dtype=jnp.dtype(model.dtype),
  )
  options: dict[str, Any] = {"skips": True} if model.skips else {}
  if model.depth:
    options["depth"] = model.depth
  network = GENERATORS[model.generator](
    size,
    output_size=size // 2 if model.predict == "patch" else size,
    bottleneck=model.bottleneck,
    noise_dim=model.noise_dim,
    settings=settings,
    **options,
  )
  if model.encoder == "auto":
    return network
  encoder = pretrained.PretrainedEncoder(model.encoder, model.freeze_encoder, settings)
  return network.clone(encoder=encoder)


def encoder_params(config: Config) -> PyTree | None:
  """Returns the initial parameters of the generator's encoder; None = random ones.

  Raises:
    ValueError: the weight file cannot be read, or is of another network.
    OSError: the file cannot be opened.
  """
  if not config.model.encoder_weights:
    return None
  return pretrained.encoder_params(
    config.model.encoder, weights.load(config.model.encoder_weights)
  )


def discriminator(config: Config) -> PatchGAN:
  """Returns the discriminator that a configuration describes."""
  model = config.model
  settings = Settings(
    width=config.discriminator.width, init=model.init, dtype=jnp.dtype(model.dtype)
  )
  return PatchGAN(config.discriminator.depth, settings)


def optimizers(config: Config, generator: Any, total_steps: int) -> Optimizers:
  """Returns the update rules of a run of `total_steps`.

  The generator's is restricted to its trainable slices, if it names them.
  """
  options = config.optimizer
  trainable = generator.trainable() if hasattr(generator, "trainable") else {}
  return Optimizers(
    restrict(
      update_rule(options, total_steps, options.generator_multiplier), trainable
    ),
    update_rule(options, total_steps),
  )


def update_rule(
  options: Optimizer, total_steps: int, multiplier: float = 1.0
) -> optax.GradientTransformation:
  """Returns an update rule at `multiplier` times the learning rate."""
  rate = options.learning_rate * multiplier
  if options.schedule == "cosine":
    rate = optax.cosine_decay_schedule(rate, total_steps)
  if options.name == "adam":
    return optax.adam(rate, b1=options.b1, b2=options.b2)
  if options.name == "adamw":
    decay = options.weight_decay
    return optax.adamw(rate, b1=options.b1, b2=options.b2, weight_decay=decay)
  if options.name == "rmsprop":
    return optax.rmsprop(rate)
  return optax.adadelta(rate)


def mask_sampler(config: Config) -> masks.Sampler:
  """Returns the function from a PRNG key to a mask that a configuration describes.

  Raises:
    ValueError, FileNotFoundError: the silhouettes cannot be read.
  """
  silhouettes = region_silhouettes(config.masks, config.data.image_size)
  options = dict(vars(config.masks))
  for name in ("fill", "path", "inverted"):
    del options[name]
  options["probabilities"] = vars(config.masks.probabilities)
  return masks.make_sampler(
    options.pop("kind"), config.data.image_size, shapes=silhouettes, **options
  )


def view(config: Config, mean_color: Sequence[float] = GREY) -> View:
  """Returns the generator's input and output as a configuration describes them.

  Args:
    config: see `ctx_encoder.config`.
    mean_color: the data set's mean colour, in [0, 255], for masks.fill=mean.
  """
  fill = masks.parse_fill(config.masks.fill, mean_color)
  return View(
    image_size=config.data.image_size,
    fill=None if fill is None else tuple(fill.tolist()),
    normalization=config.data.normalization,
    mask_channel=config.model.mask_channel,
    predict=config.model.predict,
  )


def objective(config: Config, view: View) -> Objective:
  """Returns the losses that a configuration describes.

  Raises:
    ValueError: the weight file of the style loss cannot be read, or lacks a layer.
  """
  return Objective(
    view=view,
    weights=loss_weights(config),
    reconstruction=config.reconstruction,
    adversarial=config.adversarial,
    sees=config.discriminator.sees,
    windows=patchgan.windows(config.discriminator.depth),
    style_features=style_features(config),
  )


def loss_weights(config: Config) -> dict[str, losses.Weight]:
  """Returns the weights of the loss terms, as schedules where they warm up."""
  warm_up = vars(config.loss_warm_up)
  return {
    name: optax.linear_schedule(0.0, weight, warm_up[name])
    if weight and warm_up.get(name)
    else weight
    for name, weight in vars(config.loss_weights).items()
  }


def style_features(config: Config) -> losses.FeatureFunction | None:
  """Returns the features of the style loss; None = the discriminator's.

  Raises:
    ValueError: the weight file cannot be read, or lacks a layer.
  """
  options = config.style
  if not config.loss_weights.style or options.features == "discriminator":
    return None
  if options.features == "random":
    # Half the cost of the step that filters of 3 to 15 pixels at full size have.
    filters = random_filters.multi_scale_features(jax.random.key(0), kernels=(7,))
    levels = 3 if config.data.image_size >= 32 else 2
    return random_filters.pyramid(filters, levels)
  network = VGG(int(options.features.removeprefix("vgg")))
  layers = [name.strip() for name in options.layers.split(",")]
  return feature_function(network, weights.load(options.path), layers)
