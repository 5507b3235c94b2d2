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
  example, which dropout and bottleneck noise need. With `skips` the decoder is given
  the encoder's maps beside the bottleneck's output.
  """

  encoder: nn.Module
  bottleneck: nn.Module
  decoder: nn.Module
  skips: bool = False

  def encode(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns the bottleneck's output: the features that inpainting has learned."""
    return self._code(self._maps(x, train, keys)[-1], train, keys)

  def layers(
    self, x: jax.Array, *, train: bool = False, keys: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Returns the outputs of the encoder's layers and of the "bottleneck", by name."""
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
  def reached(self) -> dict[tuple[str, ...], tuple[slice, ...] | None]:
    """Returns what training changes of the parameters that it does not change whole.

    Path of the parameter to slices of its first axes, the rest being never read; or to
    None where it is frozen.
    """
    parts = {
      "encoder": self.encoder.reached(),
      "decoder": self.decoder.reached(self.bottleneck.side),
    }
    return {
      (part, *path): region
      for part, found in parts.items()
      for path, region in found.items()
    }

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
  depth: int = 0,
  noise_dim: int = 0,
  settings: Settings | None = None,
) -> Generator:
  """Returns the AlexNet-like generator of the report's 'Photos'.

  Args:
    image_size: side of the input, a power of two of at least 16.
    output_size: side of the output; `image_size` unless given.
    bottleneck: "dense" (the default), "conv" or "channelwise".
    depth: stages more or less in the encoder, see `encoder.deepened`.
    noise_dim: noise values joined at the bottleneck.
    settings: what all layers share.
  """
  settings = settings or Settings()
  return _generator(
    encoders.deepened(encoders.photos_stages(image_size), depth),
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
  depth: int = 0,
  skips: bool = False,
  noise_dim: int = 0,
  settings: Settings | None = None,
) -> Generator:
  """Returns the DCGAN-like generator of the report's 'Monet'.

  Args:
    image_size: side of the input, a power of two of at least 16.
    output_size: side of the output; `image_size` unless given.
    bottleneck: "dense", "conv" (the default) or "channelwise".
    skips: whether the encoder's maps go to the decoder too, as in a U-Net; not in the
      report.
    depth: stages more or less in the encoder, see `encoder.deepened`.
    noise_dim: noise values joined at the bottleneck.
    settings: what all layers share.
  """
  settings = settings or Settings()
  bottleneck = "conv" if bottleneck == "auto" else bottleneck
  return _generator(
    encoders.deepened(encoders.monet_stages(image_size), depth),
    _bottleneck(bottleneck, 4, 512, noise_dim, settings),
    decoders.MONET_FROM_PIXEL if bottleneck == "conv" else (),
    decoders.stages_to(decoders.MONET, 4, output_size or image_size),
    output_size or image_size,
    settings,
    skips,
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


def _generator(
  stages, bottleneck, prefix, suffix, size, settings, skips=False
) -> Generator:
  return Generator(
    encoder=encoders.Encoder(stages, settings),
    bottleneck=bottleneck,
    decoder=decoders.Decoder(prefix + suffix, size, settings),
    skips=skips,
  )
