"""Layers that the networks share, and the stage: a convolution and its successors."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ctx_encoder.models.ops import conv
from ctx_encoder.models.ops.pool import max_pool

BATCH_NORM_EPSILON = 1e-3  # Keras's; Flax's is 1e-5
LEAKY_SLOPE = 0.2


@dataclasses.dataclass(frozen=True)
class Stage:
  """One row of a network's table.

  `then` lists the layers after the convolution, in order: "norm" (BatchNorm with
  `momentum`), "affine" (a factor and a bias per channel, see `folding`), "relu",
  "leaky_relu", "pool" (3x3 maximum at stride 2), "pool_same" (3x3 maximum at stride 1,
  size kept), "dropout". `spectral` normalises the kernel, see `SpectralConv`.
  """

  features: int
  kernel: int = 4
  stride: int = 2
  padding: str = "SAME"
  then: tuple[str, ...] = ()
  momentum: float = 0.8
  dropout: float = 0.0
  spectral: bool = False


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of all layers of a network.

  width: multiplies every channel count.
  dropout: replaces the rates of all dropout layers, unless None.
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
    keys: `[B]` PRNG keys, one per example, so that the result does not depend on how
      a batch is split over devices.

  Returns:
    `[B, ...]`.
  """
  draw = functools.partial(jax.random.bernoulli, p=1 - rate, shape=x.shape[1:])
  return jnp.where(jax.vmap(draw)(keys), x / (1 - rate), 0).astype(x.dtype)


def maybe_dropout(x, rate: float, train: bool, keys: jax.Array | None):
  """`dropout` in training mode, with keys derived from `keys`."""
  if not train or rate == 0:
    return x
  own_keys = stage_keys(keys, 0)
  if own_keys is None:
    raise ValueError("Dropout in training mode needs `keys`, a PRNG key per example.")
  return dropout(x, rate, own_keys)


def batch_norm(settings: Settings, momentum: float, train: bool, **kwargs):
  """BatchNorm with Keras's epsilon and statistics over the global batch."""
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


def convolution(
  settings: Settings, features: int, kernel, stride: int, padding: str, name="conv"
):
  """`nn.Conv` that runs `ops.conv`."""
  return nn.Conv(
    features,
    kernel if isinstance(kernel, tuple) else (kernel, kernel),
    strides=stride,
    padding=padding,
    dtype=settings.dtype,
    kernel_init=settings.kernel_init,
    conv_general_dilated=conv.conv_general_dilated,
    name=name,
  )


class SpectralConv(nn.Module):
  """Convolution whose kernel is divided by its spectral norm.

  The kernel as a matrix W `[kernel * kernel * C, features]` has the norm

    sigma = v^T W u,  v = W u / |W u|,  u = W^T v / |W^T v|,

  where u comes from one power iteration per call with `train=True`. u lies in the
  collection "batch_stats", which such calls must have as mutable. The gradient takes u
  and v as constants.

  References: Miyato et al., Spectral normalization for generative adversarial
    networks, ICLR 2018, algorithm 1.
  """

  features: int
  kernel: int
  stride: int
  padding: str
  settings: Settings = Settings()

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    shape = (self.kernel, self.kernel, x.shape[-1], self.features)
    kernel = self.param("kernel", self.settings.kernel_init, shape)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    u = self.variable("batch_stats", "u", self._first_direction)
    constant = jax.lax.stop_gradient(kernel).reshape(-1, self.features)
    v = _unit(constant @ u.value)
    if train:
      u.value = _unit(constant.T @ v)
    sigma = v @ kernel.reshape(-1, self.features) @ u.value
    dtype = self.settings.dtype
    y = conv.conv_general_dilated(
      x.astype(dtype),
      (kernel / sigma).astype(dtype),
      (self.stride, self.stride),
      self.padding,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y + bias.astype(dtype)[None, None, None, :]

  def _first_direction(self) -> jax.Array:
    return _unit(jax.random.normal(self.make_rng("params"), (self.features,)))


def _unit(vector: jax.Array) -> jax.Array:
  return vector / (jnp.linalg.norm(vector) + 1e-12)


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


def upsample(
  x: jax.Array,
  kind: str,
  features: int,
  kernel: int,
  stride: int,
  settings: Settings,
  name: str,
) -> jax.Array:
  """Maps `[B, H, W, C]` to `[B, H * stride, W * stride, features]`.

  Must be called from a compact method of a module, where `name` names the layer.

  Args:
    x: the input.
    kind: "transposed" (a transposed convolution) or "resize" (every pixel repeated,
      then a 3x3 convolution, whatever `kernel` is: no checkerboard pattern).
    features: output channels.
    kernel: side of the transposed convolution's kernel.
    stride: factor by which sides grow.
    settings: dtype and initial weights.
    name: of the layer's parameters.

  References: Odena, Dumoulin and Olah, Deconvolution and checkerboard artifacts,
    Distill, 2016.
  """
  if kind == "transposed":
    return ConvTranspose(features, kernel, stride, settings, name=name)(x)
  if kind != "resize":
    raise ValueError(f"upsample must be transposed or resize, not {kind!r}.")
  x = jnp.repeat(jnp.repeat(x, stride, axis=1), stride, axis=2)
  return convolution(settings, features, 3, 1, "SAME", name)(x)


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
  """Runs one `Stage`, with a convolution or with `layers.upsample` of some kind."""

  stage: Stage
  settings: Settings = Settings()
  upsample: str | None = None

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    stage, settings = self.stage, self.settings
    features = settings.channels(stage.features)
    shape = features, stage.kernel, stage.stride
    if self.upsample:
      x = upsample(x, self.upsample, *shape, settings, "conv")
    elif stage.spectral:
      x = SpectralConv(*shape, stage.padding, settings, name="conv")(x, train=train)
    else:
      x = convolution(settings, *shape, stage.padding)(x)
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
        x = max_pool(x, 3, 2, "VALID")
      elif layer == "pool_same":
        x = max_pool(x, 3, 1, "SAME")
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
  """Returns the BatchNorm momenta of stages, nested as their running statistics."""
  return {
    f"stage{i + 1}": {"norm": stage.momentum}
    for i, stage in enumerate(stages)
    if "norm" in stage.then
  }


def unbiased_statistics(batch_stats, momenta, updates: jax.Array):
  """Bias-corrects BatchNorm running statistics.

  Running means start at 0 and variances at 1. After t updates with momentum m the
  initial value has the weight m^t (37 % after 100 updates at 0.99). As in Adam's
  correction of its moments,

    mean / (1 - m^t),  (variance - m^t) / (1 - m^t)

  are the weighted means of the batches' statistics.

  Args:
    batch_stats: nested dict that ends in `{"mean": [C], "var": [C]}`.
    momenta: nested dict with the same keys that ends in momenta.
    updates: int scalar, t; at 0 the statistics are returned unchanged.

  Returns:
    Nested dict like `batch_stats`.
  """
  if not isinstance(momenta, dict):
    # An integer exponent would be compiled as a constant, once per value.
    left = jnp.power(momenta, jnp.asarray(updates, jnp.float32))
    left = jnp.where(updates > 0, left, 0.0)
    mean, var = batch_stats["mean"], batch_stats["var"]
    return {"mean": mean / (1 - left), "var": (var - left) / (1 - left)}
  return {
    name: unbiased_statistics(stats, momenta[name], updates)
    for name, stats in batch_stats.items()
  }
