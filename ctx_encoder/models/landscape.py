"""A fully convolutional generator that paints texture without a grid.

Default stages, 2.6 million parameters, for an input of side S:

| stage          | side        | layers                                   | channels   |
|---------------|------------|------------------------------------------|-----------|
| stem           | S/2         | space-to-depth, 3x3                      | 32         |
| down1, down2   | S/4, S/8    | 4x4 with stride 2                        | 64, 160    |
| block1-8       | S/8         | residual 3x3, dilation 1 or 2 in turn    | 160        |
| attend3, 6     | S/8         | residual self-attention                  | 160        |
| up1, up2, head | S/4, S/2, S | 1x1, nearest upsampling, skip, 3x3       | 64, 32, 16 |
| paint          | S           | 3x3                                      | 3          |

Upsampling repeats pixels, and a 3x3 convolution follows; two convolutions at full
resolution follow the last, so that no position within a block of pixels is special.
There is no normalisation. Noise inside the hole is a source of variation for texture.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models.layers import LEAKY_SLOPE
from ctx_encoder.models.ops import conv, cpu_conv

MULTIPLE = 8  # that sides of images must be
_DILATIONS = (1, 2)


class Landscape(nn.Module):
  """Predicts what to add to a smoothly filled image: `[B, H, W, 4]` to `[B, H, W, 3]`.

  The input is the image in [-1, 1] with its hole filled by `masks.smooth_fill`, and the
  mask, 1 = hole; H and W are multiples of 8. `keys` are `[B]` PRNG keys of the noise;
  without them it is the same for every image.

  channels: of stem, down1, and down2 with the blocks; head has half of stem's.
  blocks: number of residual blocks.
  attend: numbers of the blocks, from 1, that self-attention follows.
  heads: of the attention.
  dtype: type of activations; parameters are float32.
  """

  channels: tuple[int, int, int] = (32, 64, 160)
  blocks: int = 8
  attend: tuple[int, ...] = (3, 6)
  heads: int = 4
  dtype: Any = jnp.float32

  @classmethod
  def of_width(cls, width: float, dtype: Any = jnp.float32) -> "Landscape":
    """Returns a network of `width` times the channels, multiples of 8."""
    scaled = [max(8, 8 * round(width * count / 8)) for count in cls.channels]
    return cls(channels=(scaled[0], scaled[1], scaled[2]), dtype=dtype)

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    del train
    if x.shape[3] != 4 or x.shape[1] % MULTIPLE or x.shape[2] % MULTIPLE:
      raise ValueError(
        f"The input must be [B, H, W, 4] with H and W multiples of {MULTIPLE}, not"
        f" {x.shape}."
      )
    half, quarter, eighth = self.channels
    hole = x[..., 3:]
    known = 1 - nn.avg_pool(hole, (MULTIPLE, MULTIPLE), (MULTIPLE, MULTIPLE))
    x = jnp.concatenate([x, hole * _noise(x.shape, keys)], axis=3).astype(self.dtype)
    stem = _leaky(self._conv("stem", half, 3)(cpu_conv.space_to_depth(x, 2)))
    down1 = _leaky(self._conv("down1", quarter, 4, stride=2)(stem))
    y = _leaky(self._conv("down2", eighth, 4, stride=2)(down1))
    for number in range(1, self.blocks + 1):
      dilation = _DILATIONS[(number - 1) % len(_DILATIONS)]
      y = Block(dilation, self.dtype, name=f"block{number}")(y)
      if number in self.attend:
        y = Attention(self.heads, self.dtype, name=f"attend{number}")(y, known)
    y = self._up("up1", y, down1, quarter)
    y = self._up("up2", y, stem, half)
    y = self._up("head", y, x, half // 2)
    return self._conv("paint", 3, 3, scale=0.1)(y).astype(jnp.float32)

  def _up(self, name, y, skip, features):
    """Doubles the side and appends the skip connection."""
    y = self._conv(f"{name}_in", features, 1)(y)
    y = jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2)
    return _leaky(self._conv(name, features, 3)(jnp.concatenate([y, skip], axis=3)))

  def _conv(self, name, features, kernel, stride=1, scale=1.0):
    return _conv(name, features, kernel, self.dtype, stride=stride, scale=scale)


class Block(nn.Module):
  """Residual 3x3 and 1x1 convolutions: `[B, h, w, C]` to the same shape."""

  dilation: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    features = x.shape[3]
    y = _conv("conv", features, 3, self.dtype, dilation=self.dilation)(x)
    return x + _conv("join", features, 1, self.dtype, scale=0.1)(_leaky(y))


class Attention(nn.Module):
  """Residual self-attention with cosine similarity: `[B, h, w, C]`.

  logits = factor * cos(q, k) + prefer * known(k), with factor and prefer learned per
  head; known `[B, h, w, 1]` is the share of known pixels at a position.
  """

  heads: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, known: jax.Array) -> jax.Array:
    b, h, w, c = x.shape
    qkv = _conv("qkv", 3 * c, 1, self.dtype)(x)
    q, k, v = (
      part.reshape(b, h * w, self.heads, c // self.heads)
      for part in jnp.split(qkv, 3, axis=3)
    )
    factor = self.param("factor", nn.initializers.constant(8.0), (self.heads,))
    prefer = self.param("prefer", nn.initializers.constant(1.0), (self.heads,))
    logits = jnp.einsum("bqhc,bkhc->bhqk", _unit(q), _unit(k))
    logits = logits.astype(jnp.float32) * factor[None, :, None, None]
    logits += prefer[None, :, None, None] * known.reshape(b, 1, 1, h * w)
    shares = jax.nn.softmax(logits, axis=3).astype(self.dtype)
    y = jnp.einsum("bhqk,bkhc->bqhc", shares, v).reshape(b, h, w, c)
    return x + _conv("join", c, 1, self.dtype, scale=0.1)(y)


def _noise(shape: tuple[int, ...], keys: jax.Array | None) -> jax.Array:
  """Returns normal noise `[B, H, W, 1]`, or `[1, H, W, 1]` without keys."""
  h, w = shape[1:3]
  keys = jax.random.key(0)[None] if keys is None else keys
  return jax.vmap(lambda key: jax.random.normal(key, (h, w, 1)))(keys)


def _conv(name, features, kernel, dtype, *, stride=1, dilation=1, scale=1.0):
  pad = dilation * (kernel - 1) // 2
  return nn.Conv(
    features,
    (kernel, kernel),
    strides=stride,
    padding=((pad, pad), (pad, pad)),
    kernel_dilation=dilation,
    dtype=dtype,
    kernel_init=nn.initializers.variance_scaling(scale**2 * 2, "fan_in", "normal"),
    conv_general_dilated=conv.conv_general_dilated,
    name=name,
  )


def _leaky(x: jax.Array) -> jax.Array:
  return nn.leaky_relu(x, LEAKY_SLOPE)


def _unit(x: jax.Array) -> jax.Array:
  """Returns vectors scaled to length 1."""
  square = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=3, keepdims=True)
  return (x * jax.lax.rsqrt(square + 1e-6)).astype(x.dtype)
