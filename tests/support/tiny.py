"""The smallest networks that have every kind of layer: seconds less to compile."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder import config as configuration
from ctx_encoder.evaluation import figures
from ctx_encoder.models import PatchGAN, Settings, Stage, layers
from ctx_encoder.models.bottleneck import Dense
from ctx_encoder.models.decoder import Decoder
from ctx_encoder.models.encoder import Encoder
from ctx_encoder.models.generator import Generator
from ctx_encoder.training import assembly, trainer
from ctx_encoder.training.checkpoint import Checkpoints
from ctx_encoder.training.setup import Optimizers, Run
from ctx_encoder.training.state import TrainState
from ctx_encoder.training.step import TrainStep, make_train_step

SIZE = 16  # side of the images


def generator(noise_dim=0):
  """Returns a generator with strides, BatchNorm, dropout and noise."""
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
  """Returns a discriminator of two stages, one of them with BatchNorm."""
  return PatchGAN(1, Settings(width=1 / 16))


class Mosaic(nn.Module):
  """A generator without convolutions: each 4x4 block is a function of its mean colour.

  It has BatchNorm, dropout and noise. For tests of complete runs.
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
  def unbiased_statistics(self, batch_stats, updates):
    return layers.unbiased_statistics(batch_stats, {"norm": 0.8}, updates)


class MosaicDiscriminator(nn.Module):
  """A discriminator of the same kind: `[B, S, S, 3]` to `[B, S / 4, S / 4, 1]`."""

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.Dense(8, name="encode")(nn.avg_pool(x, (4, 4), (4, 4)))
    x = nn.leaky_relu(layers.batch_norm(Settings(), 0.8, train, name="norm")(x))
    return nn.Dense(1, name="decode")(x)


def use_mosaics(patch):
  """Makes `assembly` use these two for any configuration, until the patch is undone."""
  patch.setitem(assembly.GENERATORS, "photos", mosaic)
  patch.setattr(assembly, "discriminator", lambda config: MosaicDiscriminator())


def use_small_networks(patch):
  """Makes `assembly` use `generator` and a mosaic discriminator for 'Photos'."""
  use_mosaics(patch)
  patch.setitem(
    assembly.GENERATORS, "photos", lambda size, noise_dim=0, **_: generator(noise_dim)
  )


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


class Ready(NamedTuple):
  """A run that is ready for its first step. The step is jitted, and not donated."""

  run: Run
  optimizers: Optimizers
  state: TrainState
  step: TrainStep


def ready(run=None, *, total_steps=10, options=None, **changes):
  """Assembles a run, its optimizers, its initial state and its step.

  Args:
    run: made already; None = that of `config(**changes)`.
    total_steps: of the run.
    options: XLA's, for the step.
    changes: see `config`.
  """
  run = run or assembly.run(config(**changes))
  optimizers = run.optimizers(run.generator, total_steps)
  key = jax.random.key(run.config.seed)
  state = jax.jit(lambda: run.init(key, optimizers))()
  step = jax.jit(make_train_step(run, optimizers), compiler_options=options)
  return Ready(run, optimizers, state, step)


def abstract_state(config):
  """Returns the shapes and types of a configuration's training state."""
  run = assembly.run(config)
  optimizers = run.optimizers(run.generator, 1)
  return jax.eval_shape(lambda: run.init(jax.random.key(0), optimizers))


def untrained_run(workdir, step, **changes):
  """Makes a work directory of a generator with random weights and statistics."""
  made, color = config(**changes), [200.0, 100.0, 50.0]
  state = ready(assembly.run(made, mean_color=color)).state
  draw, own = np.random.default_rng(0), state.generator

  def drawn(low, high):
    return lambda x: np.float32(draw.uniform(low, high, x.shape))

  stats = jax.tree.map(drawn(0.2, 0.8), own.batch_stats)
  # Biases, which start at 0, and scales are drawn too.
  params = jax.tree.map(lambda x: x if x.ndim > 1 else drawn(-0.5, 1)(x), own.params)
  number = jnp.asarray(step, jnp.int32)
  state = state.replace(
    step=number,
    updates=number,
    generator=own.replace(params=params, batch_stats=stats),
    average=params if made.ema_decay else None,
  )
  with Checkpoints(workdir / "checkpoints") as checkpoints:
    saved = configuration.to_dict(made)
    checkpoints.save(step, state, config=saved, extra={"mean_color": color})
  return workdir


def train(workdir, **changes):
  """Trains a run of `config(**changes)`, draws no curves, and returns its folder."""
  with pytest.MonkeyPatch.context() as patch:  # drawing takes half of the time
    patch.setattr(figures, "curves", lambda *args, **kwargs: None)
    trainer.train(config(**changes), workdir, say=lambda line: None)
  return workdir


def batch(size=4, side=SIZE, seed=0):
  """Returns a batch of noise."""
  rng = np.random.default_rng(seed)
  return {
    "image": rng.integers(0, 256, (size, side, side, 3), np.uint8),
    "index": rng.integers(0, 2**31, size).astype(np.int32),
  }
