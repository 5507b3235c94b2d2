"""The networks, as Flax modules.

`photos` and `monet` return generators, `Landscape` is one; `PatchGAN` is the
discriminator. `fold_batch_norm` prepares a generator for inference. `VGG`, `AlexNet`,
`SqueezeNet` and `multi_scale_features` give features of images, `make_lpips` a
perceptual distance.

- encoder, bottleneck, decoder, generator: the report's generators and their tables.
- landscape: a fully convolutional generator beyond the report.
- patchgan: the discriminator.
- layers: the layers that all of these share.
- folding: BatchNorm folded into other layers.
- pretrained: encoders with published weights.
- ops/: convolutions and pooling that are fast on CPUs.
- feature_nets/: networks with published weights, for losses and metrics.
- weights/: weight files of PyTorch, Keras, NumPy and safetensors.
"""

from ctx_encoder.models.feature_nets import (
  VGG,
  AlexNet,
  SqueezeNet,
  feature_function,
  make_lpips,
  multi_scale_features,
)
from ctx_encoder.models.folding import fold_batch_norm
from ctx_encoder.models.generator import GENERATORS, Generator, monet, photos
from ctx_encoder.models.landscape import Landscape
from ctx_encoder.models.layers import Settings, Stage
from ctx_encoder.models.patchgan import (
  MultiScale,
  PatchGAN,
  probabilities,
  receptive_field,
)

__all__ = [
  "GENERATORS",
  "VGG",
  "AlexNet",
  "Generator",
  "Landscape",
  "MultiScale",
  "PatchGAN",
  "Settings",
  "SqueezeNet",
  "Stage",
  "feature_function",
  "fold_batch_norm",
  "make_lpips",
  "monet",
  "multi_scale_features",
  "photos",
  "probabilities",
  "receptive_field",
]
