"""The smallest networks that have every kind of layer: seconds less to compile."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import config as configuration
from ctx_encoder.models import PatchGAN, Settings, Stage, layers
from ctx_encoder.models.bottleneck import Dense
from ctx_encoder.models.decoder import Decoder
from ctx_encoder.models.encoder import Encoder
from ctx_encoder.models.generator import Generator
from ctx_encoder.training import assembly as build
from ctx_encoder.training.checkpoint import Checkpoints

SIZE = 16  # side of the images


def generator(noise_dim=0):
  """A generator with strides, BatchNorm, dropout and noise."""
  settings = Settings()
  dropped = ("leaky_relu", "norm", "dropout")
  encoder = (Stage(4, stride=4, then=dropped, dropout=0.5),)
  decoder = (Stage(4, then=("relu", "norm")),)
  return Generator(
    Encoder(encoder, settings),
    Dense(SIZE // 4, 4, noise_dim=noise_dim, settings=settings),
    Decoder(decoder, SIZE, settings),
  )


def discriminator():
  """Two stages, one of them with BatchNorm."""
  return PatchGAN(1, Settings(width=1 / 16))


class Mosaic(nn.Module):
  """A generator without convolutions: every 4x4 pixels are made of the same 4x4.

  With BatchNorm, dropout and noise, for tests of whole runs.
  """

  side: int
  noise_dim: int
  settings: Settings

  @nn.compact
  def __call__(self, x, *, train=False, keys=None):
    x = nn.Dense(8, name="encode")(nn.avg_pool(x, (4, 4), (4, 4)))
    x = nn.leaky_relu(layers.batch_norm(self.settings, 0.8, train, name="norm")(x))
    x = layers.maybe_dropout(x, self.settings.rate(0.3), train, keys)
    if self.noise_dim:
      noise = jax.vmap(lambda key: jax.random.normal(key, (self.noise_dim,)))(keys)
      noise = jnp.broadcast_to(noise[:, None, None], (*x.shape[:3], self.noise_dim))
      x = jnp.concatenate([x, noise], axis=3)
    tiles = nn.Dense(4 * 4 * 3, name="decode")(x)
    tiles = tiles.reshape(len(x), self.side // 4, self.side // 4, 4, 4, 3)
    return jnp.tanh(tiles.swapaxes(2, 3).reshape(len(x), self.side, self.side, 3))

  @nn.nowrap
  def reached(self):
    return {}

  @nn.nowrap
  def unbiased_statistics(self, batch_stats, updates):
    return layers.unbiased_statistics(batch_stats, {"norm": 0.8}, updates)


class MosaicJudge(nn.Module):
  """A discriminator of the same kind: `[B, S, S, 3]` to `[B, S / 4, S / 4, 1]`."""

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.Dense(8, name="encode")(nn.avg_pool(x, (4, 4), (4, 4)))
    x = nn.leaky_relu(layers.batch_norm(Settings(), 0.8, train, name="norm")(x))
    return nn.Dense(1, name="decode")(x)


def use_mosaics(patch):
  """Lets `build` make these two of any configuration, until the patch is undone."""
  patch.setitem(build.GENERATORS, "photos", mosaic)
  patch.setattr(build, "discriminator", lambda config: MosaicJudge())


def mosaic(image_size, *, output_size, bottleneck, noise_dim, settings):
  del image_size, bottleneck
  return Mosaic(output_size, noise_dim, settings)


def config(**changes):
  """Returns a configuration of these networks; `a__b=c` sets its field a.b to c."""
  config = configuration.default()
  config.data.image_size = SIZE
  config.data.loader = "pillow"  # TensorFlow takes seconds to load
  config.discriminator.depth = 1
  config.discriminator.width = 1 / 16
  config.batch_size = 4
  config.update({name.replace("__", "."): value for name, value in changes.items()})
  return config


def untrained_run(workdir, step, **changes):
  """Makes a work directory of a generator with random weights and statistics."""
  made, color = config(**changes), [200.0, 100.0, 50.0]
  run = build.run(made, mean_color=color)
  state = jax.jit(lambda: run.init(jax.random.key(0), run.optimizers(1)))()
  draw, own = np.random.default_rng(0), state.generator

  def drawn(low, high):
    return lambda x: np.float32(draw.uniform(low, high, x.shape))

  stats = jax.tree.map(drawn(0.2, 0.8), own.batch_stats)
  # Biases, which start at 0, and scales are drawn too.
  params = jax.tree.map(lambda x: x if x.ndim > 1 else drawn(-0.5, 1)(x), own.params)
  own = own.replace(params=params, batch_stats=stats)
  state = state.replace(step=jnp.asarray(step, jnp.int32), generator=own)
  with Checkpoints(workdir / "checkpoints") as checkpoints:
    saved = configuration.to_dict(made)
    checkpoints.save(step, state, config=saved, extra={"mean_color": color})
  return workdir


def batch(size=4, side=SIZE, seed=0):
  """Returns a batch of noise."""
  rng = np.random.default_rng(seed)
  return {
    "image": rng.integers(0, 256, (size, side, side, 3), np.uint8),
    "index": rng.integers(0, 2**31, size).astype(np.int32),
  }
