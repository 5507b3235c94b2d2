"""The configuration of a run, a tree of dataclasses.

Each room of the package takes its own section, such as `config.data` or `config.masks`.
Sections of images, holes and augmentation are in `inputs`, those of the discriminator
and the losses in `objective`.
"""

import dataclasses

from ctx_encoder.config.fields import Section, field, fields
from ctx_encoder.config.inputs import Augment, Data, Masks
from ctx_encoder.config.objective import (
  Adversarial,
  Content,
  Discriminator,
  LossWarmUp,
  LossWeights,
  Reconstruction,
  Style,
)

# Smallest image sides that the published encoders can encode, pixels.
ENCODER_SIDES = {"vgg16": 32, "alexnet": 63}


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
  upsample: str = field(
    "transposed",
    "the decoder's upsampling: transposed convolutions, as in the report, or repeated"
    " pixels and a convolution, which leave no grid (resize)",
    choices=("transposed", "resize"),
  )
  init: str = field(
    "keras",
    "Keras's defaults, or N(0, 0.02) with BatchNorm scales N(1, 0.02)",
    choices=("keras", "dcgan"),
  )
  dtype: str = field(
    "float32",
    "type of activations, float32 on CPUs; parameters are always float32",
    choices=("float32", "bfloat16"),
  )


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
  discriminator_b1: float | None = field(
    None, "b1 of the discriminator; None = b1", low=0, high=0.9999
  )
  discriminator_b2: float | None = field(
    None, "b2 of the discriminator; None = b2", low=0, high=0.999999
  )
  clip_norm: float = field(
    0.0, "longer gradients of a network are scaled to this norm; 0 = off", low=0
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
  best_by: str = field(
    "auto",
    "metric of the best checkpoint and of early stopping; auto = lpips where eval.heads"
    " is given, else psnr",
    choices=("auto", "psnr", "lpips", "kid"),
    may_change=True,
  )
  features: str = field(
    "alexnet",
    "network of lpips and kid, not one that is trained on",
    choices=("alexnet", "squeezenet", "vgg16"),
    may_change=True,
  )
  path: str = field(
    "", "weights of eval.features, for kid and lpips; empty = none", may_change=True
  )
  heads: str = field("", "weights of LPIPS for eval.features", may_change=True)

  def best_metric(self) -> tuple[str, bool]:
    """Returns the name of the metric, and whether its highest value is the best."""
    by_lpips = self.best_by == "lpips" or (self.best_by == "auto" and self.heads)
    if by_lpips or self.best_by == "kid":
      return ("eval/lpips" if by_lpips else "eval/kid"), False
    return "eval/psnr_hole", True


@dataclasses.dataclass
class EarlyStopping(Section):
  """When a run ends before its last step."""

  patience: int = field(
    0,
    "validations without a better eval.best_by before the run ends; 0 = never",
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
  grad_norms: bool = field(
    False,
    "log the norms of the gradients: by each network's parameters, and of each weighted"
    " loss term by the generator's output",
    may_change=True,
  )


@dataclasses.dataclass
class Config(Section):
  """A run."""

  name: str = field(
    "unnamed", "run name; the work directory defaults to runs/<name>", may_change=True
  )
  seed: int = field(0, "seed of weights, order, masks, augmentation and dropout", low=0)
  init_from: str = field(
    "",
    "the generator's initial weights: landscape (those that come with the package), a"
    " run's folder or a .safetensors file; empty = random",
    may_change=True,
  )
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
  content: Content = dataclasses.field(default_factory=Content)
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
