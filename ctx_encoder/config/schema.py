"""The configuration of a run, a tree of dataclasses.

Each room of the package takes its own section, such as `config.data` or `config.masks`.
Sections of images, holes and augmentation are in `inputs`.
"""

import dataclasses

from ctx_encoder.config.fields import Section, field, fields
from ctx_encoder.config.inputs import Augment, Data, Masks


@dataclasses.dataclass
class Model(Section):
  """The generator."""

  generator: str = field(
    "photos",
    "photos (AlexNet-like) and monet (DCGAN-like) of the report, or landscape",
    choices=("photos", "monet", "landscape"),
  )
  encoder: str = field(
    "auto",
    "the generator's own, or an ImageNet classifier's",
    choices=("auto", "vgg16", "alexnet"),
  )
  encoder_weights: str = field(
    "",
    "initial weights of model.encoder, see `ctx-encoder weights`; empty = random",
    may_change=True,
  )
  freeze_encoder: bool = field(False, "do not train model.encoder")
  bottleneck: str = field(
    "auto",
    "part between encoder and decoder; auto = the generator's own",
    choices=("auto", "dense", "conv", "channelwise"),
  )
  depth: int = field(
    0, "stages of stride 1 to add to the encoder, or to remove", low=-2, high=16
  )
  skips: bool = field(
    False, "connect encoder and decoder stages of one size, as a U-Net does (monet)"
  )
  width: float = field(1.0, "multiplies every channel count", low=0.01, high=8)
  dropout: float | None = field(
    None, "dropout rate of all stages; None = each stage's own", low=0, high=0.95
  )
  noise_dim: int = field(0, "noise values appended at the bottleneck", low=0)
  mask_channel: bool = field(
    False, "give the mask to the generator as a fourth channel"
  )
  predict: str = field(
    "image",
    "the complete image, only its centre half (patch), or what to add to the input"
    " (residual, best with masks.fill=smooth)",
    choices=("image", "patch", "residual"),
  )
  init: str = field(
    "keras",
    "Keras's defaults, or N(0, 0.02) with BatchNorm scales N(1, 0.02)",
    choices=("keras", "dcgan"),
  )
  dtype: str = field(
    "float32",
    "type of activations; parameters stay float32",
    choices=("float32", "bfloat16"),
  )


@dataclasses.dataclass
class Discriminator(Section):
  """The PatchGAN."""

  sees: str = field(
    "completed",
    "its input: the completed image, the generator's raw output, or the centre patch",
    choices=("completed", "output", "patch"),
  )
  depth: int = field(
    3, "strided stages; 3 gives a 70x70 receptive field", low=1, high=5
  )
  width: float = field(1.0, "multiplies every channel count", low=0.01, high=8)


@dataclasses.dataclass
class Reconstruction(Section):
  """The reconstruction loss."""

  norm: str = field(
    "l2",
    "squared error, absolute error, or Charbonnier's smooth absolute error",
    choices=("l2", "l1", "charbonnier"),
  )
  per: str = field(
    "hole",
    "divide the sum of errors by the hole's size, by the image's, or by nothing",
    choices=("hole", "image", "sum"),
  )
  overlap: int = field(
    0, "pixels around the hole that are predicted too", low=0, high=64
  )
  overlap_weight: float = field(10.0, "weight of the error on that ring", low=0)
  discount: float = field(
    1.0,
    "weight of a pixel's error: this to the power of its distance from the border",
    low=0.5,
    high=1,
  )


@dataclasses.dataclass
class Adversarial(Section):
  """The adversarial loss and the discriminator's penalties."""

  game: str = field(
    "bce",
    "binary cross-entropy, least squares, hinge or Wasserstein",
    choices=("bce", "least_squares", "hinge", "wasserstein"),
  )
  label_smoothing: float = field(
    0.0, "label real images 1 - this (bce, least_squares)", low=0, high=0.49
  )
  mask_aware: bool = field(
    False, "label only patches whose receptive field meets the hole as fake"
  )
  r1: float = field(
    0.0, "weight of the R1 penalty, |dD/dx|^2 / 2 at real images", low=0
  )
  gradient_penalty: float = field(
    0.0,
    "weight of the penalty (|dD/dx| - 1)^2 between real and completed images;"
    " wasserstein needs it or r1",
    low=0,
  )


@dataclasses.dataclass
class Style(Section):
  """The features whose Gram matrices the style loss compares."""

  features: str = field(
    "random",
    "fixed random filters, a VGG (needs style.path), or the discriminator's features",
    choices=("random", "vgg16", "vgg19", "discriminator"),
  )
  path: str = field(
    "",
    "weights of the VGG: Keras .h5, torchvision .pth or .safetensors, or .npz",
    may_change=True,
  )
  layers: str = field(
    "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1", "layers of the VGG, comma-separated"
  )


@dataclasses.dataclass
class LossWeights(Section):
  """Weights of the generator's loss terms; terms of weight 0 are not computed."""

  reconstruction: float = field(0.999, "weight of the reconstruction loss", low=0)
  adversarial: float = field(0.001, "weight of the generator's adversarial loss", low=0)
  style: float = field(0.0, "weight of the distance between Gram matrices", low=0)
  total_variation: float = field(0.0, "weight of the hole's total variation", low=0)
  seam: float = field(
    0.0, "weight of the error of differences across the hole's border", low=0
  )


@dataclasses.dataclass
class LossWarmUp(Section):
  """Linear warm-ups of loss weights."""

  adversarial: int = field(0, "steps over which the weight rises from 0", low=0)
  style: int = field(0, "steps over which the weight rises from 0", low=0)


@dataclasses.dataclass
class Optimizer(Section):
  """The update rule of both networks."""

  name: str = field(
    "adam", "update rule", choices=("adam", "adamw", "rmsprop", "adadelta")
  )
  learning_rate: float = field(
    2e-4, "learning rate of the discriminator", low=0, high=10
  )
  generator_multiplier: float = field(
    1.0,
    "the generator's learning rate, relative to the discriminator's",
    low=0,
    high=1000,
  )
  b1: float = field(0.5, "decay of the first moment (adam, adamw)", low=0, high=0.9999)
  b2: float = field(
    0.999, "decay of the second moment (adam, adamw)", low=0, high=0.999999
  )
  weight_decay: float = field(0.0, "weight decay of adamw", low=0, high=1)
  schedule: str = field(
    "constant",
    "learning rate over the run: constant, or a cosine that ends at 0",
    choices=("constant", "cosine"),
  )


@dataclasses.dataclass
class Eval(Section):
  """Validation."""

  every_epochs: int = field(1, "epochs between validations", low=1, may_change=True)
  batch_size: int = field(
    0, "images in a validation step; 0 = batch_size", low=0, may_change=True
  )
  grid_images: int = field(
    8, "validation images in the picture grid", low=1, high=64, may_change=True
  )


@dataclasses.dataclass
class EarlyStopping(Section):
  """When a run ends before its last step."""

  patience: int = field(
    0,
    "validations without a better PSNR before the run ends; 0 = never",
    low=0,
    may_change=True,
  )


@dataclasses.dataclass
class Checkpoint(Section):
  """What is saved."""

  every_steps: int = field(
    0, "steps between saves; 0 = save only at validations", low=0, may_change=True
  )
  keep: int = field(
    2, "latest checkpoints kept besides the best", low=1, high=100, may_change=True
  )


@dataclasses.dataclass
class Log(Section):
  """What is written to metrics.jsonl."""

  every_steps: int = field(
    10, "steps between lines in metrics.jsonl", low=1, may_change=True
  )
  grad_norms: bool = field(False, "log the norms of the gradients", may_change=True)


@dataclasses.dataclass
class Config(Section):
  """A run."""

  name: str = field(
    "unnamed", "run name; the work directory defaults to runs/<name>", may_change=True
  )
  seed: int = field(0, "seed of weights, order, masks, augmentation and dropout", low=0)
  batch_size: int = field(32, "images per step, over all devices", low=1)
  accumulate: int = field(
    1,
    "parts that a batch is split into to save memory; gradients are averaged over them,"
    " BatchNorm statistics are each part's own",
    low=1,
  )
  num_epochs: int = field(
    200, "passes over the training images", low=1, may_change=True
  )
  num_steps: int = field(
    0, "training steps; 0 = as many as num_epochs takes", low=0, may_change=True
  )
  steps_per_dispatch: int = field(
    0,
    "steps per call of the compiled function; 0 = 1 on CPU, 8 elsewhere",
    low=0,
    may_change=True,
  )
  update_order: str = field(
    "simultaneous",
    "both gradients from one pair of forward passes, or the discriminator's update"
    " first",
    choices=("simultaneous", "alternating"),
  )
  on_nonfinite: str = field(
    "stop",
    "after a step with an infinite or NaN loss, parameter or moment: end the run, or"
    " skip the step",
    choices=("stop", "skip"),
    may_change=True,
  )
  watchdog_minutes: int = field(
    30,
    "minutes without a step after which the run ends, as when a disk does not answer;"
    " compiling does not count; 0 = never",
    low=0,
    may_change=True,
  )
  sharding: str = field(
    "replicated",
    "on several devices: parameters and optimizer state copied to each, or split",
    choices=("replicated", "sharded"),
    may_change=True,
  )
  ema_decay: float = field(
    0.0,
    "decay of the generator's moving average, which is evaluated and used; 0 = off",
    low=0,
    high=0.99999,
  )
  data: Data = dataclasses.field(default_factory=Data)
  masks: Masks = dataclasses.field(default_factory=Masks)
  augment: Augment = dataclasses.field(default_factory=Augment)
  model: Model = dataclasses.field(default_factory=Model)
  discriminator: Discriminator = dataclasses.field(default_factory=Discriminator)
  reconstruction: Reconstruction = dataclasses.field(default_factory=Reconstruction)
  adversarial: Adversarial = dataclasses.field(default_factory=Adversarial)
  style: Style = dataclasses.field(default_factory=Style)
  loss_weights: LossWeights = dataclasses.field(default_factory=LossWeights)
  loss_warm_up: LossWarmUp = dataclasses.field(default_factory=LossWarmUp)
  optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
  eval: Eval = dataclasses.field(default_factory=Eval)
  early_stopping: EarlyStopping = dataclasses.field(default_factory=EarlyStopping)
  checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)
  log: Log = dataclasses.field(default_factory=Log)


FIELDS = dict(fields(Config))  # every field by its dotted name


def default() -> Config:
  """Returns a new configuration with every field at its default."""
  return Config()
