"""Generators: an encoder, a bottleneck and a decoder."""

import flax.linen as nn
import jax

from ctx_encoder.models import bottleneck as bottlenecks
from ctx_encoder.models import decoder as decoders
from ctx_encoder.models import encoder as encoders
from ctx_encoder.models.layers import Settings, stage_keys, unbiased_statistics


class Generator(nn.Module):
  """Completes a masked image: `[B, S, S, C]` to `[B, S', S', 3]` in [-1, 1].

  `__call__` takes `train` (batch statistics and dropout) and `keys`, one PRNG key an
  example, which dropout and bottleneck noise need.
  """

  encoder: nn.Module
  bottleneck: nn.Module
  decoder: nn.Module

  def encode(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns the bottleneck's output: the features that inpainting has learned."""
    x = self.encoder(x, train=train, keys=stage_keys(keys, 0))
    return self.bottleneck(x, train=train, keys=stage_keys(keys, 1))

  def __call__(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    x = self.encode(x, train=train, keys=keys)
    return self.decoder(x, train=train, keys=stage_keys(keys, 2))

  @nn.nowrap
  def reached(self) -> dict[tuple[str, ...], tuple[slice, slice]]:
    """Returns the parts that are read, of the parameters that are not read whole."""
    found = self.decoder.reached(self.bottleneck.side)
    return {("decoder", *path): region for path, region in found.items()}

  @nn.nowrap
  def unbiased_statistics(self, batch_stats: dict, updates: jax.Array) -> dict:
    """Returns running statistics without their start; see `unbiased_statistics`."""
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
  noise_dim: int = 0,
  settings: Settings | None = None,
) -> Generator:
  """Returns the AlexNet-like generator of the report's 'Photos'.

  Args:
    image_size: side of the input, a power of two of at least 16.
    output_size: side of the output; `image_size` unless given.
    bottleneck: "dense" (the default), "conv" or "channelwise".
    noise_dim: noise values joined at the bottleneck.
    settings: what all layers share.
  """
  settings = settings or Settings()
  return _generator(
    encoders.photos_stages(image_size),
    _bottleneck(
      "dense" if bottleneck == "auto" else bottleneck, 6, 256, noise_dim, settings
    ),
    decoders.PHOTOS_FROM_PIXEL if bottleneck == "conv" else (),
    decoders.stages_to(
      decoders.PHOTOS, 4 if bottleneck == "conv" else 6, output_size or image_size
    ),
    output_size or image_size,
    settings,
  )


def monet(
  image_size: int = 128,
  *,
  output_size: int | None = None,
  bottleneck: str = "auto",
  noise_dim: int = 0,
  settings: Settings | None = None,
) -> Generator:
  """Returns the DCGAN-like generator of the report's 'Monet'.

  Arguments as for `photos`; the default bottleneck is "conv".
  """
  settings = settings or Settings()
  bottleneck = "conv" if bottleneck == "auto" else bottleneck
  return _generator(
    encoders.monet_stages(image_size),
    _bottleneck(bottleneck, 4, 512, noise_dim, settings),
    decoders.MONET_FROM_PIXEL if bottleneck == "conv" else (),
    decoders.stages_to(decoders.MONET, 4, output_size or image_size),
    output_size or image_size,
    settings,
  )


GENERATORS = {"photos": photos, "monet": monet}


def _bottleneck(kind, side, features, noise_dim, settings) -> nn.Module:
  if kind == "dense":
    return bottlenecks.Dense(side, features, noise_dim=noise_dim, settings=settings)
  if kind == "conv":
    return bottlenecks.Conv(4000, noise_dim=noise_dim, settings=settings)
  if kind == "channelwise":
    return bottlenecks.Channelwise(
      side, features, noise_dim=noise_dim, settings=settings
    )
  raise ValueError(f"Bottleneck must be dense, conv or channelwise, not {kind!r}.")


def _generator(stages, bottleneck, prefix, suffix, size, settings) -> Generator:
  return Generator(
    encoder=encoders.Encoder(stages, settings),
    bottleneck=bottleneck,
    decoder=decoders.Decoder(prefix + suffix, size, settings),
  )
