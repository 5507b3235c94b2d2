"""Generators: an encoder, a bottleneck and a decoder."""

import flax.linen as nn
import jax

from ctx_encoder.models import bottleneck as bottlenecks
from ctx_encoder.models import decoder as decoders
from ctx_encoder.models import encoder as encoders
from ctx_encoder.models.layers import Settings, stage_keys, unbiased_statistics


class Generator(nn.Module):
  """Completes a masked image: `[B, S, S, C]` to `[B, S', S', 3]` in [-1, 1].

  `__call__` takes `train` (batch statistics and dropout) and `keys`, one PRNG key per
  example, which dropout and bottleneck noise need. With `skips` the decoder also gets
  the encoder's maps.
  """

  encoder: nn.Module
  bottleneck: nn.Module
  decoder: nn.Module
  skips: bool = False

  def encode(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns the bottleneck's output: the features that inpainting learns."""
    return self._code(self._maps(x, train, keys)[-1], train, keys)

  def layers(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Returns the outputs of the encoder's layers and of the bottleneck, by name."""
    maps = self._maps(x, train, keys)
    named = dict(zip(self.encoder.layers, maps, strict=True))
    return named | {"bottleneck": self._code(maps[-1], train, keys)}

  def __call__(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    maps = self._maps(x, train, keys)
    code = self._code(maps[-1], train, keys)
    skips = maps if self.skips else ()
    return self.decoder(code, skips=skips, train=train, keys=stage_keys(keys, 2))

  def _maps(self, x, train, keys) -> list[jax.Array]:
    return self.encoder.maps(x, train=train, keys=stage_keys(keys, 0))

  def _code(self, x, train, keys) -> jax.Array:
    return self.bottleneck(x, train=train, keys=stage_keys(keys, 1))

  @nn.nowrap
  def trainable(self) -> dict[tuple[str, ...], tuple[slice, ...] | None]:
    """Returns the trainable slices of partly trained parameters.

    Returns:
      {path of the parameter: slices of its first axes that get gradients, or None where
      the parameter is frozen}. All other parameters are trained completely. Values
      outside of the slices have no effect on the output.
    """
    parts = {
      "encoder": self.encoder.trainable(),
      "decoder": self.decoder.trainable(self.bottleneck.side),
    }
    return {
      (part, *path): region
      for part, found in parts.items()
      for path, region in found.items()
    }

  @nn.nowrap
  def unbiased_statistics(self, batch_stats: dict, updates: jax.Array) -> dict:
    """Bias-corrects running statistics, see `layers.unbiased_statistics`."""
    parts = ("encoder", "bottleneck", "decoder")
    momenta = {
      part: getattr(self, part).momenta() for part in parts if part in batch_stats
    }
    return unbiased_statistics(batch_stats, momenta, updates)


def photos(
  image_size: int = 128,
  *,
  output_size: int | None = None,
  bottleneck: str = "auto",
  depth: int = 0,
  noise_dim: int = 0,
  upsample: str = "transposed",
  settings: Settings | None = None,
) -> Generator:
  """Returns the AlexNet-like generator of the report's 'Photos'.

  Args:
    image_size: side of the input, a power of two of at least 16, pixels.
    output_size: side of the output, pixels; None = `image_size`.
    bottleneck: "dense" (also "auto"), "conv" or "channelwise".
    depth: stages to add to the encoder or remove from it, see `encoder.deepened`.
    noise_dim: noise values concatenated at the bottleneck.
    upsample: "transposed" or "resize", see `layers.upsample`; the latter is not in the
      report.
    settings: settings of all layers.

  Raises:
    ValueError: an argument is out of range or unknown.
  """
  settings = settings or Settings()
  size = output_size or image_size
  kind = "dense" if bottleneck == "auto" else bottleneck
  stages = decoders.stages_to(decoders.PHOTOS, 4 if kind == "conv" else 6, size)
  if kind == "conv":
    stages = decoders.PHOTOS_FROM_PIXEL + stages
  return Generator(
    encoders.Encoder(
      encoders.deepened(encoders.photos_stages(image_size), depth), settings
    ),
    _bottleneck(kind, 6, 256, noise_dim, settings),
    _decoder(stages, size, settings, upsample),
  )


def monet(
  image_size: int = 128,
  *,
  output_size: int | None = None,
  bottleneck: str = "auto",
  depth: int = 0,
  skips: bool = False,
  noise_dim: int = 0,
  upsample: str = "transposed",
  settings: Settings | None = None,
) -> Generator:
  """Returns the DCGAN-like generator of the report's 'Monet'.

  Args:
    image_size, output_size, depth, noise_dim, upsample, settings: as for `photos`.
    bottleneck: "dense", "conv" (also "auto") or "channelwise".
    skips: whether the decoder also gets the encoder's maps, as in a U-Net; not in the
      report.

  Raises:
    ValueError: an argument is out of range or unknown.
  """
  settings = settings or Settings()
  size = output_size or image_size
  kind = "conv" if bottleneck == "auto" else bottleneck
  stages = decoders.stages_to(decoders.MONET, 4, size)
  if kind == "conv":
    stages = decoders.MONET_FROM_PIXEL + stages
  return Generator(
    encoders.Encoder(
      encoders.deepened(encoders.monet_stages(image_size), depth), settings
    ),
    _bottleneck(kind, 4, 512, noise_dim, settings),
    _decoder(stages, size, settings, upsample),
    skips,
  )


GENERATORS = {"photos": photos, "monet": monet}


def _bottleneck(kind, side, features, noise_dim, settings) -> nn.Module:
  options = {"noise_dim": noise_dim, "settings": settings}
  if kind == "dense":
    return bottlenecks.Dense(side, features, **options)
  if kind == "conv":
    return bottlenecks.Conv(4000, **options)
  if kind == "channelwise":
    return bottlenecks.Channelwise(side, features, **options)
  raise ValueError(f"Bottleneck must be dense, conv or channelwise, not {kind!r}.")


def _decoder(stages, size, settings, upsample) -> decoders.Decoder:
  if upsample not in ("transposed", "resize"):
    raise ValueError(f"upsample must be transposed or resize, not {upsample!r}.")
  return decoders.Decoder(stages, size, settings, upsample)
