"""The smallest networks that have every kind of layer: seconds less to compile."""

import numpy as np

from ctx_encoder import config as configuration
from ctx_encoder.models import PatchGAN, Settings, Stage
from ctx_encoder.models.bottleneck import Dense
from ctx_encoder.models.decoder import Decoder
from ctx_encoder.models.encoder import Encoder
from ctx_encoder.models.generator import Generator

SIZE = 16  # side of the images


def generator(
  image_size=SIZE, *, output_size=None, bottleneck="", noise_dim=0, settings=None
):
  """Stands in for those in `models.GENERATORS`: strides, BatchNorm, dropout, noise."""
  del bottleneck
  settings = settings or Settings()
  output_size = output_size or image_size
  dropped = ("leaky_relu", "norm", "dropout")
  encoder = (Stage(4, stride=4, then=dropped, dropout=0.5),)
  decoder = (Stage(4, then=("relu", "norm")),)
  return Generator(
    Encoder(encoder, settings),
    Dense(output_size // 4, 4, noise_dim=noise_dim, settings=settings),
    Decoder(decoder, output_size, settings),
  )


def discriminator():
  """Two stages, one of them with BatchNorm."""
  return PatchGAN(1, Settings(width=1 / 16))


def config(**changes):
  """Returns a configuration of these networks; `a__b=c` sets its field a.b to c."""
  config = configuration.default()
  config.data.image_size = SIZE
  config.data.loader = "pillow"  # TensorFlow takes seconds to load
  config.discriminator.depth = 1
  config.discriminator.width = 1 / 16
  config.batch_size = 4
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config


def batch(size=4, side=SIZE, seed=0):
  """Returns a batch of noise."""
  rng = np.random.default_rng(seed)
  return {
    "image": rng.integers(0, 256, (size, side, side, 3), np.uint8),
    "index": rng.integers(0, 2**31, size).astype(np.int32),
  }
