"""From a configuration to the parts of a run."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ctx_encoder import losses, masks
from ctx_encoder.augment import make_augment
from ctx_encoder.config import Config, Optimizer
from ctx_encoder.data.silhouettes import region_silhouettes
from ctx_encoder.evaluation import compare, perceptual
from ctx_encoder.models import (
  GENERATORS,
  VGG,
  AlexNet,
  Landscape,
  MultiScale,
  PatchGAN,
  Settings,
  SqueezeNet,
  feature_function,
  patchgan,
  pretrained,
  weights,
)
from ctx_encoder.models.feature_nets import lpips, random_filters
from ctx_encoder.training.objective import Distance, Objective
from ctx_encoder.training.optimizer import restrict, trainable
from ctx_encoder.training.setup import Optimizers, Run
from ctx_encoder.training.state import PyTree
from ctx_encoder.training.task import View

GREY = (127.5, 127.5, 127.5)

FEATURE_NETWORKS = {
  "squeezenet": SqueezeNet(),
  "alexnet": AlexNet(),
  "vgg16": VGG(16),
  "vgg19": VGG(19),
}

# Names that LPIPS has for them; VGG-19 has the layers that it uses of VGG-16.
LPIPS = {"squeezenet": "squeeze", "alexnet": "alex", "vgg16": "vgg", "vgg19": "vgg"}


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
  if model.upsample != "transposed":
    options["upsample"] = model.upsample
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


def discriminator(config: Config) -> PatchGAN | MultiScale:
  """Returns the discriminator that a configuration describes."""
  model, own = config.model, config.discriminator
  settings = Settings(width=own.width, init=model.init, dtype=jnp.dtype(model.dtype))
  options = own.depth, settings, own.norm, own.mask_input
  return PatchGAN(*options) if own.scales == 1 else MultiScale(own.scales, *options)


def optimizers(config: Config, generator: Any, total_steps: int) -> Optimizers:
  """Returns the update rules of a run of `total_steps`.

  The generator's is restricted to its trainable slices, if it names them.
  """
  options = config.optimizer
  betas = {"b1": options.discriminator_b1, "b2": options.discriminator_b2}
  betas = {name: beta for name, beta in betas.items() if beta is not None}
  rules = Optimizers(
    restrict(
      update_rule(options, total_steps, options.generator_multiplier),
      trainable(generator),
    ),
    update_rule(dataclasses.replace(options, **betas), total_steps),
  )
  if not options.clip_norm:
    return rules
  clip = optax.clip_by_global_norm(options.clip_norm)
  return Optimizers(*(optax.chain(clip, rule) for rule in rules))


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
    ValueError: a weight file of the losses cannot be read, or lacks a layer.
  """
  return Objective(
    view=view,
    weights=loss_weights(config),
    reconstruction=config.reconstruction,
    adversarial=config.adversarial,
    sees=config.discriminator.sees,
    windows=patchgan.windows(config.discriminator.depth),
    style_features=style_features(config),
    content=content_distance(config),
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
  return image_features(options.features, options.path, options.layers, config)


def content_distance(config: Config) -> Distance | None:
  """Returns the content loss, a function of images; None = it has no weight.

  Raises:
    ValueError: a weight file cannot be read, or lacks a layer.
  """
  options, name = config.content, config.content.network()
  if not config.loss_weights.content:
    return None
  if options.heads:
    files = weights.load(options.path), weights.load(options.heads)
    return lpips.make_lpips(LPIPS[name], *files)
  layers = options.layers
  if not layers and name != "random":
    layers = ",".join(lpips.TRUNKS[LPIPS[name]].taps)
  features = image_features(name, options.path, layers, config)
  return functools.partial(losses.content_loss, features=features)


def image_features(
  name: str, path: str, layers: str, config: Config
) -> losses.FeatureFunction:
  """Returns a function from images in [0, 1] to features for a loss.

  Args:
    name: a key of `FEATURE_NETWORKS`, or "random".
    path: weights of the network.
    layers: its layers, comma-separated.
    config: of the run, for the size of the images.

  Raises:
    ValueError: the weight file cannot be read, or lacks a layer.
  """
  if name == "random":
    # Half the cost of the step that filters of 3 to 15 pixels at full size have.
    filters = random_filters.multi_scale_features(jax.random.key(0), kernels=(7,))
    levels = 3 if config.data.image_size >= 32 else 2
    return random_filters.pyramid(filters, levels)
  taps = [layer.strip() for layer in layers.split(",")]
  return feature_function(FEATURE_NETWORKS[name], weights.load(path), taps)


def validation(config: Config) -> Callable[..., dict[str, compare.Means]]:
  """Returns `compare.validate`, with the metrics of `eval.features` if it has weights.

  Raises:
    ValueError: a weight file cannot be read, or the images are too small.
  """
  options = config.eval
  if not options.path:
    return compare.validate
  if jax.process_count() > 1:
    raise ValueError("'eval.path' needs a run of one process.")
  name = LPIPS[options.features]
  measured = perceptual.Perceptual(name, options.path, options.heads or None)
  measured.features(np.zeros((1, *[config.data.image_size] * 2, 3), np.uint8))
  return functools.partial(perceptual.validate, measured)
