"""The networks: two generators and a PatchGAN discriminator, as Flax modules.

And those of others, to take features from: VGG, AlexNet, SqueezeNet, random filters.
"""

from ctx_encoder.models.feature_nets.alexnet import AlexNet
from ctx_encoder.models.feature_nets.lpips import make_lpips
from ctx_encoder.models.feature_nets.random_filters import multi_scale_features
from ctx_encoder.models.feature_nets.squeezenet import SqueezeNet
from ctx_encoder.models.feature_nets.vgg import VGG, feature_function
from ctx_encoder.models.folding import fold_batch_norm
from ctx_encoder.models.generator import GENERATORS, Generator, monet, photos
from ctx_encoder.models.layers import Settings, Stage
from ctx_encoder.models.patchgan import PatchGAN, probabilities, receptive_field

__all__ = [
  "GENERATORS",
  "VGG",
  "AlexNet",
  "Generator",
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
