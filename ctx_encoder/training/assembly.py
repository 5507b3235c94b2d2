"""From a configuration to the functions of a run: the one place that reads both."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from ctx_encoder import losses, masks
from ctx_encoder.augment import make_augment
from ctx_encoder.models import (
  GENERATORS,
  VGG,
  Generator,
  PatchGAN,
  Settings,
  feature_function,
  patchgan,
  pretrained,
)
from ctx_encoder.models.feature_nets import random_filters
from ctx_encoder.models.weights import read as weights
from ctx_encoder.training.optimizer import restrict
from ctx_encoder.training.state import PyTree, TrainState, init_state
from ctx_encoder.training.step import TrainStep, make_train_step, skip_nonfinite
from ctx_encoder.training.task import Task


@dataclasses.dataclass(frozen=True)
class Run:
  """The pure parts of a run."""

  generator: Generator
  discriminator: PatchGAN
  generator_optimizer: optax.GradientTransformation
  discriminator_optimizer: optax.GradientTransformation
  task: Task
  train_step: TrainStep

  def init(self, seed: int, *, average: bool) -> TrainState:
    """Returns the state before the first step."""
    return init_state(
      jax.random.key(seed),
      self.generator,
      self.discriminator,
      self.generator_optimizer,
      self.discriminator_optimizer,
      image_size=self.task.image_size,
      channels=self.task.channels,
      judged_size=self.task.judged_size,
      average=average,
    )


def run(
  config: ConfigDict,
  *,
  total_steps: int,
  mean_color: Sequence[float] = (127.5, 127.5, 127.5),
  shapes: np.ndarray | None = None,
  axis_name: str | None = None,
) -> Run:
  """Returns everything that a validated configuration describes, except the data.

  Args:
    config: see `ctx_encoder.config.schema`.
    total_steps: length of the run, for schedules.
    mean_color: the data set's mean colour, in [0, 255], for masks.fill=mean.
    shapes: silhouettes `[N, S, S, 1]` for masks.region=shapes.
    axis_name: see `make_train_step`.
  """
  networks = generator(config), discriminator(config)
  optimizers = (
    restrict(generator_optimizer(config, total_steps), networks[0].reached()),
    optimizer(config, total_steps),
  )
  built = task(config, mean_color=mean_color, shapes=shapes)
  train_step = make_train_step(
    *networks,
    *optimizers,
    built,
    update_order=config.update_order,
    ema_decay=config.ema_decay,
    grad_norms=config.log.grad_norms,
    accumulate=config.accumulate,
    axis_name=axis_name,
  )
  if config.on_nonfinite == "skip":
    train_step = skip_nonfinite(train_step)
  return Run(*networks, *optimizers, built, train_step)


def generator(config: ConfigDict) -> Generator:
  """Returns the generator that a configuration describes."""
  model, size = config.model, config.data.image_size
  settings = Settings(
    width=model.width,
    dropout=model.dropout,
    init=model.init,
    dtype=jnp.dtype(model.dtype),
  )
  options = {"skips": True} if model.skips else {}
  if model.depth:
    options["depth"] = model.depth
  built = GENERATORS[model.generator](
    size,
    output_size=size // 2 if model.predict == "patch" else size,
    bottleneck=model.bottleneck,
    noise_dim=model.noise_dim,
    settings=settings,
    **options,
  )
  if model.encoder == "auto":
    return built
  encoder = pretrained.PretrainedEncoder(model.encoder, model.freeze_encoder, settings)
  return built.clone(encoder=encoder)


def encoder_params(config: ConfigDict) -> PyTree | None:
  """Returns the parameters that the generator's encoder starts from, or None.

  Raises:
    ValueError: the weight file cannot be read, or is not of that network.
    OSError: the file cannot be opened.
  """
  if not config.model.encoder_weights:
    return None
  return pretrained.encoder_params(
    config.model.encoder, weights.load(config.model.encoder_weights)
  )


def discriminator(config: ConfigDict) -> PatchGAN:
  """Returns the discriminator that a configuration describes."""
  model = config.model
  settings = Settings(
    width=config.discriminator.width, init=model.init, dtype=jnp.dtype(model.dtype)
  )
  return PatchGAN(config.discriminator.depth, settings)


def optimizer(
  config: ConfigDict, total_steps: int, multiplier: float = 1.0
) -> optax.GradientTransformation:
  """Returns the update rule, at `multiplier` times the learning rate."""
  options = config.optimizer
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
  if options.name == "adadelta":
    return optax.adadelta(rate)
  raise ValueError(f"There is no optimiser {options.name!r}.")


def generator_optimizer(
  config: ConfigDict, total_steps: int
) -> optax.GradientTransformation:
  """Returns the generator's update rule."""
  return optimizer(config, total_steps, config.optimizer.generator_multiplier)


def mask_sampler(config: ConfigDict, shapes: np.ndarray | None = None) -> masks.Sampler:
  """Returns the function from a PRNG key to a mask that a configuration describes."""
  options = config.masks
  return masks.make_sampler(
    options.kind,
    config.data.image_size,
    center_fraction=options.center_fraction,
    block_count=options.block_count,
    block_min_side=options.block_min_side,
    block_max_side=options.block_max_side,
    block_max_area=options.block_max_area,
    region=options.region,
    shapes=shapes,
    brush_strokes=options.brush_strokes,
    brush_width=options.brush_width,
    probabilities=options.probabilities.to_dict(),
  )


def task(
  config: ConfigDict,
  *,
  mean_color: Sequence[float] = (127.5, 127.5, 127.5),
  shapes: np.ndarray | None = None,
) -> Task:
  """Returns what a configuration asks of the generator."""
  fill = masks.parse_fill(config.masks.fill, mean_color)
  return Task(
    image_size=config.data.image_size,
    sample_mask=mask_sampler(config, shapes),
    augment=make_augment(image_size=config.data.image_size, **config.augment.to_dict()),
    fill=None if fill is None else tuple(fill.tolist()),
    normalization=config.data.normalization,
    mask_channel=config.model.mask_channel,
    predict=config.model.predict,
    sees=config.discriminator.sees,
    **config.reconstruction.to_dict(),
    game=config.adversarial.game,
    label_smoothing=config.adversarial.label_smoothing,
    discriminator_windows=(
      patchgan.windows(config.discriminator.depth)
      if config.adversarial.mask_aware
      else None
    ),
    r1=config.adversarial.r1,
    style_features=style_features(config),
    loss_weights=loss_weights(config),
  )


def loss_weights(config: ConfigDict) -> dict[str, losses.Weight]:
  """Returns the weights of the loss terms, functions of the step where they rise."""
  steps = config.loss_warm_up.to_dict()
  return {
    name: losses.warm_up(weight, steps[name]) if weight and steps.get(name) else weight
    for name, weight in config.loss_weights.items()
  }


def style_features(config: ConfigDict) -> losses.FeatureFunction | None:
  """Returns what the style is measured on, or None for the discriminator's features.

  Raises:
    ValueError: the weight file cannot be read, or lacks a layer.
  """
  options = config.style
  if not config.loss_weights.style or options.features == "discriminator":
    return None
  if options.features == "random":
    # In a step half of what filters of 3 to 15 pixels on the whole image cost.
    filters = random_filters.multi_scale_features(jax.random.key(0), kernels=(7,))
    levels = 3 if config.data.image_size >= 32 else 2
    return random_filters.pyramid(filters, levels)
  network = VGG(int(options.features.removeprefix("vgg")))
  layers = [name.strip() for name in options.layers.split(",")]
  return feature_function(network, weights.load(options.path), layers)
