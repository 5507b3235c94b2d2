"""The stage that the networks are tables of: a convolution and what follows it."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models.ops import conv

BATCH_NORM_EPSILON = 1e-3  # Keras's; Flax's is 1e-5
LEAKY_SLOPE = 0.2


@dataclasses.dataclass(frozen=True)
class Stage:
  """One row of a network's table.

  `then` lists what follows the convolution, in order: "norm" (BatchNorm with
  `momentum`), "affine" (a factor and a bias for each channel, see `folding`), "relu",
  "leaky_relu", "pool" (3x3 maximum at stride 2), "pool_same" (3x3 maximum at stride 1,
  size kept), "dropout".
  """

  features: int
  kernel: int = 4
  stride: int = 2
  padding: str = "SAME"
  then: tuple[str, ...] = ()
  momentum: float = 0.8
  dropout: float = 0.0


@dataclasses.dataclass(frozen=True)
class Settings:
  """What all layers of a network share.

  width: multiplies every channel count.
  dropout: replaces the rate of every dropout layer of the table, if given.
  init: "keras" (Glorot uniform) or "dcgan" (kernels N(0, 0.02), BatchNorm scales
    N(1, 0.02)).
  dtype: type of activations; parameters, statistics and normalisation are float32.
  axis_name: `jax.pmap` axis over which batch statistics are averaged.
  """

  width: float = 1.0
  dropout: float | None = None
  init: str = "keras"
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def channels(self, features: int) -> int:
    return max(1, round(features * self.width))

  @property
  def kernel_init(self) -> nn.initializers.Initializer:
    if self.init == "dcgan":
      return nn.initializers.normal(0.02)
    return nn.initializers.glorot_uniform()

  def rate(self, table: float) -> float:
    return table if self.dropout is None else self.dropout


def dropout(x: jax.Array, rate: float, keys: jax.Array) -> jax.Array:
  """Sets values to 0 with probability `rate` and scales the rest by 1 / (1 - rate).

  Args:
    x: `[B, ...]`.
    rate: in [0, 1).
    keys: `[B]` PRNG keys, one an example, so that the result does not depend on how
      a batch is split over devices.

  Returns:
    `[B, ...]`.
  """
  draw = functools.partial(jax.random.bernoulli, p=1 - rate, shape=x.shape[1:])
  return jnp.where(jax.vmap(draw)(keys), x / (1 - rate), 0).astype(x.dtype)


def maybe_dropout(x, rate: float, train: bool, keys: jax.Array | None):
  """`dropout` while training, with keys that nothing else uses."""
  if not train or rate == 0:
    return x
  own_keys = stage_keys(keys, 0)
  if own_keys is None:
    raise ValueError("Dropout while training needs `keys`, one PRNG key an example.")
  return dropout(x, rate, own_keys)


def batch_norm(settings: Settings, momentum: float, train: bool, **kwargs):
  """BatchNorm with Keras's epsilon, statistics over the whole (global) batch."""
  scale_init = nn.initializers.ones
  if settings.init == "dcgan":

    def scale_init(key, shape, dtype=jnp.float32):
      return 1 + 0.02 * jax.random.normal(key, shape, dtype)

  return nn.BatchNorm(
    use_running_average=not train,
    momentum=momentum,
    epsilon=BATCH_NORM_EPSILON,
    dtype=settings.dtype,
    axis_name=settings.axis_name,
    scale_init=scale_init,
    **kwargs,
  )


def convolution(settings: Settings, features: int, kernel, stride: int, padding: str):
  """`nn.Conv` on the project's convolutions."""
  return nn.Conv(
    features,
    kernel if isinstance(kernel, tuple) else (kernel, kernel),
    strides=stride,
    padding=padding,
    dtype=settings.dtype,
    kernel_init=settings.kernel_init,
    conv_general_dilated=conv.conv_general_dilated,
    name="conv",
  )


class ConvTranspose(nn.Module):
  """Transposed convolution with Keras's semantics and kernel layout.

  Maps `[B, H, W, C]` to `[B, H * stride, W * stride, features]`; the kernel is
  `[kernel, kernel, features, C]`.
  """

  features: int
  kernel: int
  stride: int
  settings: Settings = Settings()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.kernel, self.kernel, self.features, x.shape[-1])
    kernel = self.param("kernel", self.settings.kernel_init, shape)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    dtype = self.settings.dtype
    strides = (self.stride, self.stride)
    y = conv.conv_transpose(x.astype(dtype), kernel.astype(dtype), strides, "SAME")
    return y + bias.astype(dtype)[None, None, None, :]


class Affine(nn.Module):
  """Multiplies each channel by a factor and adds a bias, in float32."""

  settings: Settings = Settings()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = (x.shape[-1],)
    scale = self.param("scale", nn.initializers.ones, channels)
    bias = self.param("bias", nn.initializers.zeros, channels)
    y = x * scale[None, None, None, :] + bias[None, None, None, :]
    return y.astype(self.settings.dtype)


class ConvStage(nn.Module):
  """Runs one `Stage`, with an ordinary or a transposed convolution."""

  stage: Stage
  settings: Settings = Settings()
  transposed: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    stage, settings = self.stage, self.settings
    features = settings.channels(stage.features)
    if self.transposed:
      x = ConvTranspose(features, stage.kernel, stage.stride, settings, name="conv")(x)
    else:
      x = convolution(settings, features, stage.kernel, stage.stride, stage.padding)(x)
    for layer in stage.then:
      if layer == "norm":
        x = batch_norm(settings, stage.momentum, train, name="norm")(x)
      elif layer == "affine":
        x = Affine(settings, name="affine")(x)
      elif layer == "relu":
        x = nn.relu(x)
      elif layer == "leaky_relu":
        x = nn.leaky_relu(x, LEAKY_SLOPE)
      elif layer == "pool":
        x = conv.max_pool(x, 3, 2, "VALID")
      elif layer == "pool_same":
        x = conv.max_pool(x, 3, 1, "SAME")
      elif layer == "dropout":
        x = maybe_dropout(x, settings.rate(stage.dropout), train, keys)
      else:
        raise ValueError(f"A stage has no layer {layer!r}.")
    return x


def stage_keys(keys: jax.Array | None, stage: int) -> jax.Array | None:
  """Returns the examples' keys for one stage of a network."""
  if keys is None:
    return None
  return jax.vmap(lambda key: jax.random.fold_in(key, stage))(keys)


def stage_momenta(stages: tuple[Stage, ...]) -> dict[str, dict[str, float]]:
  """Returns the BatchNorm momentum of every stage that has one, by parameter path."""
  return {
    f"stage{i + 1}": {"norm": stage.momentum}
    for i, stage in enumerate(stages)
    if "norm" in stage.then
  }


def unbiased_statistics(batch_stats, momenta, updates: jax.Array):
  """Takes what is left of their start out of running statistics.

  Running means start at 0 and variances at 1, and after t updates a share m^t of that
  is left, m being the momentum: 37 % after 100 updates at 0.99. Without it they are the
  weighted means of the batches' statistics, as in Adam's correction of its moments.

  Args:
    batch_stats: nested dict that ends in `{"mean": [C], "var": [C]}`.
    momenta: the same nesting, ending in a momentum.
    updates: int scalar, t; at 0 the statistics are returned as they are.

  Returns:
    Nested dict like `batch_stats`.
  """
  if not isinstance(momenta, dict):
    # To the power of a whole number JAX would compile anew for every number.
    left = jnp.power(momenta, jnp.asarray(updates, jnp.float32))
    left = jnp.where(updates > 0, left, 0.0)
    mean, var = batch_stats["mean"], batch_stats["var"]
    return {"mean": mean / (1 - left), "var": (var - left) / (1 - left)}
  return {
    name: unbiased_statistics(stats, momenta[name], updates)
    for name, stats in batch_stats.items()
  }
