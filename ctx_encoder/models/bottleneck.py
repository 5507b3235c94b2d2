"""Bottlenecks: the layers that carry information across the image.

Each maps the encoder's `[B, h, w, C]` to the decoder's input. With `noise_dim`, that
many values per example are drawn from N(0, 1) and concatenated to the code.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models import layers
from ctx_encoder.models.layers import LEAKY_SLOPE, Settings


def _noise(keys: jax.Array | None, size: int, dtype) -> jax.Array:
  if keys is None:
    raise ValueError("A bottleneck with noise needs `keys`, a PRNG key per example.")
  folded = layers.stage_keys(keys, 1)
  return jax.vmap(lambda key: jax.random.normal(key, (size,), dtype))(folded)


class Dense(nn.Module):
  """Dense layer, ReLU, dropout: to `[B, side, side, features]`."""

  side: int
  features: int
  dropout: float = 0.4
  noise_dim: int = 0
  settings: Settings = Settings()

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    features = self.settings.channels(self.features)
    x = x.reshape(x.shape[0], -1)
    if self.noise_dim:
      x = jnp.concatenate([x, _noise(keys, self.noise_dim, x.dtype)], axis=1)
    dense = nn.Dense(
      self.side * self.side * features,
      dtype=self.settings.dtype,
      kernel_init=self.settings.kernel_init,
      name="dense",
    )
    x = nn.relu(dense(x))
    rate = self.settings.rate(self.dropout)
    x = layers.maybe_dropout(x, rate, train, keys)
    return x.reshape(x.shape[0], self.side, self.side, features)


class Conv(nn.Module):
  """Convolution over the map, LeakyReLU, BatchNorm: to `[B, 1, 1, features]`.

  With `folded`, a factor and a bias per channel replace BatchNorm, see `folding`.
  """

  features: int
  momentum: float = 0.8
  noise_dim: int = 0
  settings: Settings = Settings()
  folded: bool = False
  side = 1

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    features = self.settings.channels(self.features)
    x = layers.convolution(self.settings, features, x.shape[1:3], 1, "VALID")(x)
    if self.noise_dim:
      noise = _noise(keys, self.noise_dim, x.dtype)
      x = jnp.concatenate([x, noise[:, None, None, :]], axis=3)
    x = nn.leaky_relu(x, LEAKY_SLOPE)
    if self.folded:
      return layers.Affine(self.settings, name="affine")(x)
    return layers.batch_norm(self.settings, self.momentum, train, name="norm")(x)

  @nn.nowrap
  def momenta(self) -> dict:
    """Returns the BatchNorm momenta, nested as the running statistics."""
    return {"norm": self.momentum}


class Channelwise(nn.Module):
  """A dense layer over space per channel, then a 1x1 convolution across channels.

  To `[B, side, side, features]`, with a ReLU after each of the two. It has
  `C (h w + 1) side^2` weights where a dense layer has `h w C side^2 features`.

  References: Pathak et al., CVPR 2016, section 3.1.
  """

  side: int
  features: int
  noise_dim: int = 0
  settings: Settings = Settings()

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    del train
    settings = self.settings
    batch, height, width, channels = x.shape
    inputs, outputs = height * width, self.side * self.side
    shape = (channels, inputs, outputs)
    init = settings.kernel_init
    if settings.init == "keras":
      init = nn.initializers.variance_scaling(
        1.0, "fan_avg", "uniform", in_axis=1, out_axis=2, batch_axis=(0,)
      )
    kernel = self.param("kernel", init, shape).astype(settings.dtype)
    bias = self.param("bias", nn.initializers.zeros, (channels, outputs))
    x = x.astype(settings.dtype).reshape(batch, inputs, channels)
    x = jnp.einsum("bic,cio->boc", x, kernel) + bias.T.astype(settings.dtype)[None]
    x = nn.relu(x).reshape(batch, self.side, self.side, channels)
    if self.noise_dim:
      noise = _noise(keys, self.noise_dim, x.dtype)[:, None, None, :]
      noise = jnp.broadcast_to(noise, (*x.shape[:3], self.noise_dim))
      x = jnp.concatenate([x, noise], axis=3)
    features = settings.channels(self.features)
    return nn.relu(layers.convolution(settings, features, 1, 1, "SAME")(x))
