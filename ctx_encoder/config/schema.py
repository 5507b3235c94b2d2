"""The configuration of a run: every field with its default, range and meaning.

Files in `configs/` start from `default()` and change what they need; `validate`
refuses names and values that are not in the table below, before anything starts.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import config_dict


@dataclasses.dataclass(frozen=True)
class Field:
  """One configuration value: its default, what it may be, and what it does.

  `low` and `high` are inclusive; a field whose default is None is optional and has
  the type given by `kind`.
  """

  default: Any
  help: str
  choices: tuple[str, ...] = ()
  low: float = -math.inf
  high: float = math.inf
  kind: type | None = None

  @property
  def type(self) -> type:
    return self.kind or type(self.default)


# Augmentation that suits paintings: they have an up and a down, and their colours are
# the painter's.
PAINTINGS = {
  "rotation": 10.0,
  "zoom": 0.2,
  "crop": 0.1,
  "flip_horizontal": 0.5,
  "brightness": 0.1,
  "contrast": 0.1,
  "saturation": 0.1,
}

# A generator beyond the report's: a U-Net that corrects a smooth fill, for all holes.
UNET = {
  "model.generator": "monet",
  "model.bottleneck": "channelwise",
  "model.skips": True,
  "model.mask_channel": True,
  "model.predict": "residual",
  "model.dropout": 0.0,
  "masks.fill": "smooth",
  "masks.kind": "combined",
  "masks.probabilities.brush": 1.0,
  "augment.flip_horizontal": 0.5,
}

MASK_KINDS = ("center", "random_block", "random_region", "brush")

SCHEMA: dict[str, Any] = {
  "name": Field("unnamed", "run name; the work directory defaults to runs/<name>"),
  "seed": Field(0, "seed of weights, order, masks, augmentation and dropout", low=0),
  "batch_size": Field(32, "images a step, over all devices", low=1),
  "accumulate": Field(
    1,
    "parts that a batch is worked off in, one after the other, where it is larger than"
    " memory; BatchNorm then sees a part at a time",
    low=1,
  ),
  "num_epochs": Field(200, "passes over the training images", low=1),
  "num_steps": Field(0, "steps in all; 0 = as many as num_epochs takes", low=0),
  "steps_per_dispatch": Field(
    0, "steps per call of the compiled function; 0 = 1 on CPU, 8 elsewhere", low=0
  ),
  "update_order": Field(
    "simultaneous",
    "both networks from one pair of forward passes, or discriminator first",
    choices=("simultaneous", "alternating"),
  ),
  "on_nonfinite": Field(
    "stop",
    "where a loss or parameter becomes infinite or not a number: end the run, or leave"
    " that step out and count it",
    choices=("stop", "skip"),
  ),
  "sharding": Field(
    "replicated",
    "on several devices: a copy of parameters and optimiser state on each, or split",
    choices=("replicated", "sharded"),
  ),
  "ema_decay": Field(
    0.0,
    "decay of the averaged generator that is evaluated and used; 0 = off",
    low=0,
    high=0.99999,
  ),
  "data": {
    "source": Field(
      "auto",
      "where images come from; auto = by what data.path is",
      choices=("auto", "samples", "folder", "tfrecord", "tfds"),
    ),
    "path": Field("", "folder of images, folder of TFRecords, or TFDS name"),
    "split": Field("train", "TFDS split to read, e.g. trainA"),
    "data_dir": Field("", "where TFDS keeps its data sets; empty = its default"),
    "download": Field(False, "let TFDS download the data set"),
    "image_size": Field(128, "side of the network's input", low=16, high=1024),
    "load_size": Field(
      0,
      "side that images are stored at; a random crop of image_size is trained on."
      " 0 = image_size",
      low=0,
      high=2048,
    ),
    "validation_fraction": Field(
      0.2, "share of images kept for validation, by a hash of the name", low=0, high=0.9
    ),
    "max_images": Field(0, "use at most this many images; 0 = all", low=0),
    "max_pixels": Field(100_000_000, "refuse images with more pixels", low=1),
    "max_bad_share": Field(
      0.1,
      "bad images are skipped, up to this share of all; above it the run ends",
      low=0,
      high=1,
    ),
    "placement": Field(
      "auto",
      "keep decoded images on the device, or feed batches from the host",
      choices=("auto", "host", "device"),
    ),
    "cache": Field(
      "auto",
      "keep decoded images in memory, or decode again every epoch",
      choices=("auto", "memory", "none"),
    ),
    "loader": Field(
      "auto",
      "tf.data, or threads with Pillow; auto = tf.data where it is installed and images"
      " are decoded every epoch",
      choices=("auto", "tf", "pillow"),
    ),
    "normalization": Field(
      "symmetric",
      "x / 127.5 - 1, x / 255, or each image's own minimum and maximum to -1 and 1",
      choices=("symmetric", "unit", "minmax"),
    ),
  },
  "masks": {
    "kind": Field("center", "kind of hole", choices=(*MASK_KINDS, "combined")),
    "fill": Field(
      "black",
      "what is put into the hole: black, white, the data's mean colour, #rrggbb, or"
      " smooth (from what is around it)",
    ),
    "center_fraction": Field(
      0.5, "side of the centre hole, of the image's side", low=0.05, high=1
    ),
    "block_count": Field(4, "rectangles a mask at the most", low=1, high=64),
    "block_min_side": Field(
      0.15, "shortest rectangle side, of the image's", low=0.02, high=1
    ),
    "block_max_side": Field(
      0.4, "longest rectangle side, of the image's", low=0.02, high=1
    ),
    "block_max_area": Field(
      0.25, "total area of the rectangles at the most", low=0.01, high=1
    ),
    "region": Field(
      "noise",
      "thresholded noise, or silhouettes from masks.path",
      choices=("noise", "shapes"),
    ),
    "path": Field("", "folder of silhouettes for masks.region=shapes"),
    "inverted": Field(False, "silhouettes have 0 = hole instead of 255 = hole"),
    "brush_strokes": Field(4, "strokes a mask at the most", low=1, high=32),
    "brush_width": Field(0.1, "widest stroke, of the image's side", low=0.01, high=0.5),
    "probabilities": {
      "center": Field(1.0, "weight of the kind in masks.kind=combined", low=0),
      "random_block": Field(1.0, "weight of the kind in masks.kind=combined", low=0),
      "random_region": Field(1.0, "weight of the kind in masks.kind=combined", low=0),
      "brush": Field(0.0, "weight of the kind in masks.kind=combined", low=0),
    },
  },
  "augment": {
    "rotation": Field(0.0, "largest rotation either way, degrees", low=0, high=180),
    "zoom": Field(0.0, "zoom by up to 1 + this", low=0, high=4),
    "crop": Field(0.0, "shift by up to this share of the side", low=0, high=0.5),
    "flip_horizontal": Field(0.0, "probability of a left-right flip", low=0, high=1),
    "flip_vertical": Field(0.0, "probability of an upside-down flip", low=0, high=1),
    "brightness": Field(0.0, "add up to this either way, on [0, 1]", low=0, high=1),
    "contrast": Field(0.0, "contrast factor 1 - this to 1 + this", low=0, high=1),
    "saturation": Field(0.0, "saturation factor 1 - this to 1 + this", low=0, high=1),
    "hue": Field(
      0.0, "turn the hue by up to this share of the circle", low=0, high=0.5
    ),
  },
  "model": {
    "generator": Field("photos", "table of stages", choices=("photos", "monet")),
    "encoder": Field(
      "auto",
      "the generator's own, or a network of ImageNet's classes",
      choices=("auto", "vgg16", "alexnet"),
    ),
    "encoder_weights": Field(
      "",
      "weights that model.encoder starts from: see `ctx-encoder weights`; empty ="
      " random ones",
    ),
    "freeze_encoder": Field(False, "leave the weights of model.encoder as they are"),
    "bottleneck": Field(
      "auto",
      "part between encoder and decoder; auto = the generator's own",
      choices=("auto", "dense", "conv", "channelwise"),
    ),
    "depth": Field(
      0,
      "stages of stride 1 that the encoder has more than its table, or fewer",
      low=-2,
      high=16,
    ),
    "skips": Field(
      False, "give the encoder's maps to the decoder too, as a U-Net does (monet)"
    ),
    "width": Field(1.0, "multiplies every channel count", low=0.01, high=8),
    "dropout": Field(
      None, "dropout rate everywhere; None = the table's", low=0, high=0.95, kind=float
    ),
    "noise_dim": Field(0, "noise values joined at the bottleneck", low=0),
    "mask_channel": Field(False, "give the mask to the generator as a fourth channel"),
    "predict": Field(
      "image",
      "the whole image, only its centre half (patch), or what to add to the input"
      " (residual, best with masks.fill=smooth)",
      choices=("image", "patch", "residual"),
    ),
    "init": Field(
      "keras",
      "Keras's defaults, or N(0, 0.02) with BatchNorm scales N(1, 0.02)",
      choices=("keras", "dcgan"),
    ),
    "dtype": Field(
      "float32",
      "type of activations; parameters stay float32",
      choices=("float32", "bfloat16"),
    ),
  },
  "discriminator": {
    "sees": Field(
      "completed",
      "the completed image, the generator's raw output, or the centre patch",
      choices=("completed", "output", "patch"),
    ),
    "depth": Field(3, "strided stages; 3 gives a 70x70 receptive field", low=1, high=5),
    "width": Field(1.0, "multiplies every channel count", low=0.01, high=8),
  },
  "reconstruction": {
    "norm": Field(
      "l2",
      "squared or absolute error, or absolute and rounded off at 0",
      choices=("l2", "l1", "charbonnier"),
    ),
    "per": Field(
      "hole",
      "divide by the hole's size, the image's, or not at all",
      choices=("hole", "image", "sum"),
    ),
    "overlap": Field(
      0, "pixels around the hole that are predicted too", low=0, high=64
    ),
    "overlap_weight": Field(10.0, "weight of the error on that ring", low=0),
    "discount": Field(
      1.0,
      "a pixel's error counts this to the power of its distance from the hole's border",
      low=0.5,
      high=1,
    ),
  },
  "adversarial": {
    "game": Field(
      "bce",
      "binary cross-entropy, least squares, hinge or Wasserstein",
      choices=("bce", "least_squares", "hinge", "wasserstein"),
    ),
    "label_smoothing": Field(
      0.0,
      "real images are labelled 1 - this (bce, least_squares)",
      low=0,
      high=0.49,
    ),
    "mask_aware": Field(
      False, "only patches that see something of the hole count as fake"
    ),
    "r1": Field(0.0, "penalty on the discriminator's slope at real images", low=0),
  },
  "style": {
    "features": Field(
      "random",
      "what the style is measured on: fixed random filters, a VGG (needs style.path),"
      " or the discriminator's own features",
      choices=("random", "vgg16", "vgg19", "discriminator"),
    ),
    "path": Field(
      "", "weights of the VGG: Keras .h5, torchvision .pth or .safetensors, or .npz"
    ),
    "layers": Field(
      "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1", "layers of the VGG, comma-separated"
    ),
  },
  "loss_weights": {
    "reconstruction": Field(0.999, "weight of the reconstruction error", low=0),
    "adversarial": Field(0.001, "weight of the generator's adversarial loss", low=0),
    "style": Field(0.0, "weight of the distance between Gram matrices", low=0),
    "total_variation": Field(0.0, "weight of the hole's total variation", low=0),
    "seam": Field(0.0, "weight of the error of the steps across the border", low=0),
  },
  "loss_warm_up": {
    "adversarial": Field(0, "steps over which its weight rises from 0", low=0),
    "style": Field(0, "steps over which its weight rises from 0", low=0),
  },
  "optimizer": {
    "name": Field(
      "adam",
      "update rule of both networks",
      choices=("adam", "adamw", "rmsprop", "adadelta"),
    ),
    "learning_rate": Field(2e-4, "of the discriminator", low=0, high=10),
    "generator_multiplier": Field(
      1.0, "the generator's learning rate is this many times as high", low=0, high=1000
    ),
    "b1": Field(0.5, "decay of the first moment", low=0, high=0.9999),
    "b2": Field(0.999, "decay of the second moment", low=0, high=0.999999),
    "weight_decay": Field(0.0, "of adamw", low=0, high=1),
    "schedule": Field(
      "constant",
      "learning rate over the run: constant, or falling to 0 along a cosine",
      choices=("constant", "cosine"),
    ),
  },
  "eval": {
    "every_epochs": Field(1, "epochs between validations", low=1),
    "batch_size": Field(0, "images a validation step; 0 = batch_size", low=0),
    "grid_images": Field(8, "validation images in the picture grid", low=1, high=64),
  },
  "early_stopping": {
    "patience": Field(
      0, "validations without a better PSNR before the run ends; 0 = never", low=0
    ),
  },
  "checkpoint": {
    "every_steps": Field(
      0, "save also after this many steps; 0 = at validation", low=0
    ),
    "keep": Field(2, "latest checkpoints kept, beside the best", low=1, high=100),
  },
  "log": {
    "every_steps": Field(10, "steps between lines in metrics.jsonl", low=1),
    "grad_norms": Field(False, "measure the norms of the gradients"),
  },
}


def fields(
  schema: Mapping[str, Any] = SCHEMA, prefix: str = ""
) -> Iterator[tuple[str, Field]]:
  """Yields (dotted name, field) for every field of the schema, in its order."""
  for name, entry in schema.items():
    if isinstance(entry, Field):
      yield prefix + name, entry
    else:
      yield from fields(entry, f"{prefix}{name}.")


def default() -> config_dict.ConfigDict:
  """Returns a new configuration with every field at its default, locked."""

  def build(schema: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, entry in schema.items():
      if not isinstance(entry, Field):
        values[name] = build(entry)
      elif entry.default is None:
        values[name] = config_dict.placeholder(entry.type)
      else:
        values[name] = entry.default
    return values

  return config_dict.ConfigDict(build(SCHEMA)).lock()


def from_saved(saved: Mapping[str, Any]) -> config_dict.ConfigDict:
  """Returns the configuration that a run was saved with.

  Fields that did not exist then have their defaults; those that no longer exist are
  left out.
  """
  config = default()
  known, values = dict(fields()), flatten(saved)
  config.update_from_flattened_dict(
    {name: value for name, value in values.items() if name in known}
  )
  return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns {dotted name: value} of a nested configuration."""
  flat = {}
  for name, value in config.items():
    if isinstance(value, Mapping | config_dict.ConfigDict):
      flat.update(flatten(value, f"{prefix}{name}."))
    else:
      flat[prefix + name] = value
  return flat


def unknown(name: str) -> str:
  """Returns what to say of a field that does not exist, with the nearest names."""
  near = difflib.get_close_matches(name, dict(fields()), n=3, cutoff=0.5)
  hint = f"; nearest: {', '.join(near)}" if near else ""
  return f"there is no field '{name}'{hint}"


def validate(config: config_dict.ConfigDict) -> None:
  """Raises ValueError, naming every field that is unknown, missing or out of range."""
  known = dict(fields())
  given = flatten(config)
  problems = []
  for name, value in given.items():
    if name not in known:
      problems.append(unknown(name))
    elif problem := _problem(name, known[name], value):
      problems.append(problem)
  problems += [f"field '{name}' is missing" for name in known if name not in given]
  if not problems:
    problems = _contradictions(config)
  if problems:
    raise ValueError("Configuration: " + "; ".join(problems) + ".")


def _problem(name: str, field: Field, value: Any) -> str | None:
  if value is None:
    return None if field.default is None else f"'{name}' must not be None"
  numeric = field.type in (int, float)
  accepted = (int, float) if field.type is float else field.type
  if not isinstance(value, accepted) or (numeric and isinstance(value, bool)):
    return f"'{name}' must be {field.type.__name__}, not {value!r}"
  if field.choices and value not in field.choices:
    near = difflib.get_close_matches(str(value), field.choices, n=1, cutoff=0.4)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"'{name}' must be one of {', '.join(field.choices)}, not {value!r}{hint}"
  if numeric and not math.isfinite(value):
    return f"'{name}' must be a finite number, not {value!r}"
  if numeric and not field.low <= value <= field.high:
    nearest = min(max(value, field.low), field.high)
    return (
      f"'{name}' must be within [{field.low:g}, {field.high:g}], not {value!r};"
      f" nearest: {nearest:g}"
    )
  return None


def _contradictions(config: config_dict.ConfigDict) -> list[str]:
  """Returns what is wrong with values that are valid alone."""
  data, masks, model = config.data, config.masks, config.model
  size, patch = data.image_size, model.predict == "patch"
  combined = masks.kind == "combined"
  uses_region = masks.kind == "random_region" or (
    combined and masks.probabilities.random_region > 0
  )
  predicted = masks.center_fraction * size + 2 * config.reconstruction.overlap
  depth = config.discriminator.depth
  judged = size // 2 if config.discriminator.sees == "patch" else size
  checks = (
    (
      config.batch_size % config.accumulate,
      f"'accumulate' ({config.accumulate}) must divide 'batch_size'"
      f" ({config.batch_size})",
    ),
    (
      config.accumulate > 1 and config.update_order == "alternating",
      "'accumulate' above 1 needs 'update_order=simultaneous'",
    ),
    (
      size & (size - 1),
      f"'data.image_size' must be a power of two, not {size};"
      f" nearest: {2 ** round(math.log2(size))}",
    ),
    (
      0 < data.load_size < size,
      f"'data.load_size' ({data.load_size}) must be 0 or at least 'data.image_size'"
      f" ({size})",
    ),
    (
      data.source in ("folder", "tfrecord", "tfds") and not data.path,
      f"'data.source' is {data.source!r}, which needs 'data.path'",
    ),
    (
      data.placement == "device" and data.cache == "none",
      "'data.placement=device' needs images in memory, not 'data.cache=none'",
    ),
    (
      not re.fullmatch("black|white|mean|smooth|#[0-9a-fA-F]{6}", masks.fill),
      f"'masks.fill' must be black, white, mean, smooth or #rrggbb, not {masks.fill!r}",
    ),
    (
      masks.block_min_side > masks.block_max_side,
      "'masks.block_min_side' is above 'masks.block_max_side'",
    ),
    (
      uses_region and masks.region == "shapes" and not masks.path,
      "'masks.region' is 'shapes', which needs 'masks.path', a folder of silhouettes",
    ),
    (
      combined and not sum(masks.probabilities.values()),
      "'masks.probabilities' are all 0; at least one must be above 0",
    ),
    (
      not sum(config.loss_weights.values()),
      "'loss_weights' are all 0; at least one must be above 0",
    ),
    (
      config.loss_weights.style
      and config.style.features.startswith("vgg")
      and not config.style.path,
      f"'style.features' is {config.style.features!r}, which needs 'style.path'; or"
      " take 'random'",
    ),
    (
      config.adversarial.label_smoothing
      and config.adversarial.game not in ("bce", "least_squares"),
      "'adversarial.label_smoothing' needs 'adversarial.game' bce or least_squares",
    ),
    (
      model.encoder == "auto" and (model.encoder_weights or model.freeze_encoder),
      "'model.encoder_weights' and 'model.freeze_encoder' need 'model.encoder', vgg16"
      " or alexnet",
    ),
    (
      model.encoder != "auto"
      and (data.normalization != "symmetric" or model.mask_channel),
      f"'model.encoder={model.encoder}' sees colours alone, prepared in its own way: it"
      " needs 'data.normalization=symmetric' and no 'model.mask_channel'",
    ),
    (
      model.depth < (-2 if model.generator == "photos" else -1),
      f"'model.depth' {model.depth} takes away more stages than 'model.generator=monet'"
      " has of that kind, which is 1",
    ),
    (
      model.depth and model.encoder != "auto",
      "'model.depth' is of the generator's own encoder, not of 'model.encoder'",
    ),
    (
      model.skips and (model.generator != "monet" or patch),
      "'model.skips' needs 'model.generator=monet', not 'model.predict=patch': maps of"
      " encoder and decoder meet there alone",
    ),
    (
      patch and masks.kind != "center",
      "'model.predict=patch' predicts the centre and needs 'masks.kind=center'",
    ),
    (
      patch and predicted > size / 2,
      f"'model.predict=patch' predicts {size // 2} pixels a side, and hole and overlap"
      f" take {predicted:g}; lower 'masks.center_fraction' or 'reconstruction.overlap'",
    ),
    (
      config.discriminator.sees == "patch" and not patch,
      "'discriminator.sees=patch' needs 'model.predict=patch'",
    ),
    (
      judged < 3 * 2**depth,
      f"'discriminator.depth' {depth} needs at least {3 * 2**depth} pixels a side, and"
      f" the discriminator sees {judged}",
    ),
    (
      config.optimizer.weight_decay and config.optimizer.name != "adamw",
      "'optimizer.weight_decay' needs 'optimizer.name=adamw'",
    ),
  )
  return [problem for holds, problem in checks if holds]


def variant(config: config_dict.ConfigDict, name: str) -> config_dict.ConfigDict:
  """Returns the configuration as it is (""), or cut down.

  "quick" is narrow and 64x64, a few minutes on two cores; "small" as narrow but 128x128
  and five minutes, what EXPERIMENTS.md compares.
  """
  if not name:
    return config
  if name not in ("quick", "small"):
    raise ValueError(f"A configuration has the variants quick and small, not {name!r}.")
  config.name += f"_{name}"
  config.batch_size = 16
  config.ema_decay = 0.99
  config.model.width = 0.25
  if name == "small":
    config.discriminator.width = 0.25
    config.optimizer.learning_rate = 2e-4
    config.optimizer.generator_multiplier = 5.0
    config.optimizer.schedule = "cosine"
    config.num_steps = 1000
    config.eval.every_epochs = 3
    return config
  config.data.image_size = 64
  config.data.load_size = 0
  config.model.dropout = 0.0
  config.discriminator.width = 0.125
  config.optimizer.learning_rate = 5e-4
  # As many as fit into three minutes on two cores.
  config.num_steps = 1200 if config.model.generator == "monet" else 1500
  config.eval.every_epochs = 5
  return config
