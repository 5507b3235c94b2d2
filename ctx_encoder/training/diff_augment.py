"""Differentiable augmentation of what a discriminator sees.

With it a discriminator learns small data sets by heart much later, and the generator
learns nothing of it, since real and fake images are changed alike and gradients flow
through the changes.
"""

from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp

from ctx_encoder.training import keys

Change = Callable[[jax.Array], jax.Array]

_SHIFT = 1 / 8  # largest translation, as a share of the side
_CUT = 1 / 2  # side of the square that is cut out


def diff_augment(
  key: jax.Array, position: jax.Array, side: int, kinds: Collection[str]
) -> tuple[Change, Change]:
  """Returns the changes of images and of masks, the same for real and fake images.

  color: adds U(-0.5, 0.5), multiplies saturation by U(0, 2) and contrast by
  U(0.5, 1.5). translation: shifts by up to an eighth of the side, filling with 0.
  cutout: sets a square of half the side to 0, at a random place that may be partly
  outside.

  Args:
    key: PRNG key.
    position: `[B]` positions of the examples in the global batch.
    side: of the images, pixels.
    kinds: which of "color", "translation" and "cutout".

  Returns:
    Functions of images `[B, S, S, 3]`, normalized, and of masks `[B, S, S, 1]`, which
    are only translated.

  References: Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training,
    NeurIPS 2020.
  """

  def draw(key):
    return jax.random.uniform(key, (7,))

  drawn = jax.vmap(draw)(keys.per_example(key, position))

  def masks(x: jax.Array) -> jax.Array:
    return _shifted(x, drawn[:, 3:5]) if "translation" in kinds else x

  def images(x: jax.Array) -> jax.Array:
    if "color" in kinds:
      x = _colored(x, drawn[:, :3, None, None, None])
    x = masks(x)
    return x * _kept(drawn[:, 5:7], side) if "cutout" in kinds else x

  return images, masks


def _colored(x: jax.Array, drawn: jax.Array) -> jax.Array:
  x = x + drawn[:, 0] - 0.5
  grey = jnp.mean(x, axis=3, keepdims=True)
  x = (x - grey) * (2 * drawn[:, 1]) + grey
  mean = jnp.mean(x, axis=(1, 2, 3), keepdims=True)
  return (x - mean) * (drawn[:, 2] + 0.5) + mean


def _shifted(x: jax.Array, drawn: jax.Array) -> jax.Array:
  side = x.shape[1]
  most = round(side * _SHIFT)
  offset = jnp.floor(drawn * (2 * most + 1)).astype(jnp.int32)

  def one(image: jax.Array, offset: jax.Array) -> jax.Array:
    padded = jnp.pad(image, ((most, most), (most, most), (0, 0)))
    return jax.lax.dynamic_slice(padded, (offset[0], offset[1], 0), image.shape)

  return jax.vmap(one)(x, offset)


def _kept(drawn: jax.Array, side: int) -> jax.Array:
  """Returns 0 in the square that is cut out and 1 elsewhere, `[B, S, S, 1]`."""
  start = jnp.floor(drawn * (side + 1)) - round(side * _CUT / 2)
  at = jnp.arange(side)[None, :, None]
  inside = (at >= start[:, None]) & (at < start[:, None] + round(side * _CUT))
  return 1.0 - (inside[:, :, None, 0] & inside[:, None, :, 1])[..., None]
