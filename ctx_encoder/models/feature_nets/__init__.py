"""Networks with published weights that give features of images.

- network: the protocol of such networks, weights in, `feature_function`.
- vgg, alexnet, squeezenet: networks trained on ImageNet.
- random_filters: features that need no training.
- lpips: a perceptual distance from such features.
"""

from ctx_encoder.models.feature_nets.alexnet import AlexNet
from ctx_encoder.models.feature_nets.lpips import make_lpips
from ctx_encoder.models.feature_nets.network import FeatureNetwork, feature_function
from ctx_encoder.models.feature_nets.random_filters import multi_scale_features
from ctx_encoder.models.feature_nets.squeezenet import SqueezeNet
from ctx_encoder.models.feature_nets.vgg import VGG

__all__ = [
  "VGG",
  "AlexNet",
  "FeatureNetwork",
  "SqueezeNet",
  "feature_function",
  "make_lpips",
  "multi_scale_features",
]
