"""What keeps a discriminator's slope bounded, and a generator close to its features.

`discriminate` maps images `[B, H, W, C]` to logits `[B, ...]`, parameters closed over.
D(x) is the mean of an image's logits, as in the games. Images must not influence each
other's logits: with BatchNorm on batch statistics, the gradient is that of the sum.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ctx_encoder.losses import _shapes

Discriminate = Callable[[jax.Array], jax.Array]


def r1_penalty(discriminate: Discriminate, images_real: jax.Array) -> jax.Array:
  """Squared slope of the discriminator at real images: L = |dD(x)/dx|^2 / 2.

  Args:
    discriminate: images to logits.
    images_real: `[B, H, W, C]` float, as the discriminator sees them.

  Returns:
    `[B]` float32, at least 0; to be weighted by the paper's gamma (10).

  Raises:
    ValueError: the images have not four axes, or the logits no batch axis.

  References:
    Mescheder et al., Which Training Methods for GANs do actually Converge?, ICML 2018,
    eq. 9.
  """
  return _squared_slope(discriminate, images_real, "images_real") / 2


def r2_penalty(discriminate: Discriminate, images_fake: jax.Array) -> jax.Array:
  """Squared slope of the discriminator at completed images; see `r1_penalty`.

  Args:
    discriminate: images to logits.
    images_fake: `[B, H, W, C]` float, as the discriminator sees them.

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: as for `r1_penalty`.

  References:
    Mescheder et al., ICML 2018, eq. 10.
  """
  return _squared_slope(discriminate, images_fake, "images_fake") / 2


def gradient_penalty(
  discriminate: Discriminate,
  images_real: jax.Array,
  images_fake: jax.Array,
  key: jax.Array,
) -> jax.Array:
  """Keeps the slope between real and completed images at 1: L = (|dD(z)/dz| - 1)^2.

  z = t x_real + (1 - t) x_fake, with t drawn from [0, 1) for each pair.

  Args:
    discriminate: images to logits.
    images_real: `[B, H, W, C]` float, as the discriminator sees them.
    images_fake: same shape.
    key: PRNG key.

  Returns:
    `[B]` float32, at least 0; the paper weights it by 10.

  Raises:
    ValueError: shapes do not match, or the logits have no batch axis.

  References:
    Gulrajani et al., Improved Training of Wasserstein GANs, 2017, eq. 3.
  """
  _shapes.check_images(images_real, images_fake)
  share = jax.random.uniform(key, (images_real.shape[0], 1, 1, 1))
  between = share * images_real + (1 - share) * images_fake
  squares = _squared_slope(discriminate, between, "images_real")
  # The root has no gradient at 0, where a discriminator is flat.
  flat = squares == 0
  slope = jnp.where(flat, 0.0, jnp.sqrt(jnp.where(flat, 1.0, squares)))
  return jnp.square(slope - 1)


def _squared_slope(discriminate, images, name) -> jax.Array:
  if images.ndim != 4:
    raise ValueError(f"{name} must be [B, H, W, C], not {images.shape}.")

  def total(images):
    logits = discriminate(images).astype(jnp.float32)
    _shapes.check_logits(logits, "What `discriminate` returns")
    return jnp.sum(jnp.mean(logits, axis=tuple(range(1, logits.ndim))))

  slopes = jax.grad(total)(images).astype(jnp.float32)
  return jnp.sum(jnp.square(slopes), axis=(1, 2, 3))
