"""Sections of the configuration: the discriminator and the losses."""

import dataclasses

from ctx_encoder.config.fields import Section, field

DIFF_AUGMENTS = ("color", "translation", "cutout")


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
  norm: str = field(
    "batch",
    "BatchNorm, kernels divided by their spectral norm, or no normalization",
    choices=("batch", "spectral", "none"),
  )
  mask_input: bool = field(
    False, "give the mask to the discriminator as a fourth channel"
  )
  scales: int = field(
    1, "discriminators: of the image, of it at half size and so on", low=1, high=4
  )


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
  pool: int = field(
    1,
    "compare means of squares of this side in pixels; above 1, finer texture is free",
    low=1,
    high=16,
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
    "binary cross-entropy (non-saturating), least squares, hinge or Wasserstein",
    choices=("bce", "least_squares", "hinge", "wasserstein"),
  )
  label_smoothing: float = field(
    0.0, "label real images 1 - this (bce, least_squares)", low=0, high=0.49
  )
  mask_aware: bool = field(
    False, "label only patches whose receptive field meets the hole as fake"
  )
  patches: str = field(
    "all",
    "the logits that count: all alike, or each by the hole's share at its place",
    choices=("all", "hole"),
  )
  r1: float = field(
    0.0,
    "weight of the R1 penalty, |dD/dx|^2 / 2 at real images, D the mean of the logits",
    low=0,
  )
  r1_every: int = field(
    1, "steps between R1 penalties, each multiplied by this", low=1, high=1000
  )
  gradient_penalty: float = field(
    0.0,
    "weight of the penalty (|dD/dx| - 1)^2 between real and completed images;"
    " wasserstein needs it or r1",
    low=0,
  )
  matching: str = field(
    "image",
    "where loss_weights.feature_matching compares: in the image, its known pixels, or"
    " the hole (relative to the features' mean magnitude)",
    choices=("image", "known", "hole"),
  )
  scale_weight: float = field(
    0.7,
    "weight of each coarser scale in the generator's losses, relative to the one before"
    " (discriminator.scales)",
    low=0,
    high=10,
  )
  diff_augment: str = field(
    "",
    "changes of all that the discriminator sees, for small data sets: any of"
    f" {','.join(DIFF_AUGMENTS)}",
  )


@dataclasses.dataclass
class Content(Section):
  """The distance of the content loss, between the completed image and the original."""

  features: str = field(
    "auto",
    "network; auto = squeezenet where content.path is given, else fixed random filters",
    choices=("auto", "random", "squeezenet", "alexnet", "vgg16", "vgg19"),
  )
  path: str = field(
    "",
    "weights of the network: torchvision .pth or .safetensors, or .npz; of a VGG also"
    " Keras .h5",
    may_change=True,
  )
  heads: str = field(
    "",
    "weights of LPIPS for the network (not vgg19); empty = mean squared distance",
    may_change=True,
  )
  layers: str = field(
    "", "layers of the network, comma-separated; empty = those that LPIPS uses"
  )

  def network(self) -> str:
    """Returns `features`, with "auto" resolved."""
    if self.features == "auto":
      return "squeezenet" if self.path else "random"
    return self.features


@dataclasses.dataclass
class Style(Section):
  """The features whose Gram matrices the style loss compares."""

  features: str = field(
    "random",
    "fixed random filters, a network (needs style.path), or the discriminator's"
    " features",
    choices=("random", "squeezenet", "alexnet", "vgg16", "vgg19", "discriminator"),
  )
  path: str = field(
    "",
    "weights of the network: torchvision .pth or .safetensors, or .npz; of a VGG also"
    " Keras .h5",
    may_change=True,
  )
  layers: str = field(
    "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1", "layers of the network, comma-separated"
  )


@dataclasses.dataclass
class LossWeights(Section):
  """Weights of the generator's loss terms; terms of weight 0 are not computed."""

  reconstruction: float = field(0.999, "weight of the reconstruction loss", low=0)
  adversarial: float = field(0.001, "weight of the generator's adversarial loss", low=0)
  known: float = field(
    0.0, "weight of the reconstruction's norm outside the hole", low=0
  )
  feature_matching: float = field(
    0.0, "weight of the distance of the discriminator's features", low=0
  )
  content: float = field(0.0, "weight of the distance of a network's features", low=0)
  style: float = field(0.0, "weight of the distance between Gram matrices", low=0)
  total_variation: float = field(0.0, "weight of the hole's total variation", low=0)
  seam: float = field(
    0.0, "weight of the error of differences across the hole's border", low=0
  )
  grid: float = field(
    0.0, "weight of a grid of period 2 in the hole, of its log energy", low=0
  )


@dataclasses.dataclass
class LossWarmUp(Section):
  """Linear warm-ups of loss weights."""

  adversarial: int = field(0, "steps over which the weight rises from 0", low=0)
  feature_matching: int = field(0, "steps over which the weight rises from 0", low=0)
  style: int = field(0, "steps over which the weight rises from 0", low=0)
