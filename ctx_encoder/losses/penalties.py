"""Gradient penalties of the discriminator.

`discriminate` maps images `[B, H, W, C]` to logits `[B, ...]`, its parameters closed
over; D(x) is the mean of an image's logits. The penalties need the gradient of each
image's own logits, so no logit may depend on another image of the batch: networks with
BatchNorm must use running statistics (`train=False`), not those of the batch:

  def discriminate(images):
    return discriminator.apply({"params": params, "batch_stats": stats}, images)

With batch statistics (`train=True`) the gradient with respect to an image contains
terms of all other logits, and the result is not the published penalty.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ctx_encoder import shapes

Discriminate = Callable[[jax.Array], jax.Array]


def r1_penalty(discriminate: Discriminate, images_real: jax.Array) -> jax.Array:
  """R1: the squared gradient norm at real images, L = |dD(x)/dx|^2 / 2.

  Args:
    discriminate: images to logits, each image independent of the others: running
      statistics or no normalisation, see the module's docstring.
    images_real: `[B, H, W, C]` float, in the discriminator's input range.

  Returns:
    `[B]` float32, at least 0; the paper weights it by gamma = 10.

  Raises:
    ValueError: the images have not four axes, or the logits no batch axis.

  References:
    Mescheder et al., Which Training Methods for GANs do actually Converge?, ICML 2018,
    eq. 9.
  """
  return _squared_norm(discriminate, images_real, "images_real") / 2


def r2_penalty(discriminate: Discriminate, images_fake: jax.Array) -> jax.Array:
  """R2: the squared gradient norm at completed images, otherwise as `r1_penalty`.

  References:
    Mescheder et al., ICML 2018, eq. 10.
  """
  return _squared_norm(discriminate, images_fake, "images_fake") / 2


def lazy_penalty(
  penalty: Callable[[], jax.Array], step: jax.Array | int, interval: int
) -> jax.Array:
  """Lazy regularisation: a penalty computed every `interval` steps.

  L = interval * penalty() where step is a multiple of interval, else 0; so the average
  over steps is that of the penalty.

  Args:
    penalty: returns the penalty, `[B]` or a scalar, such as
      `lambda: r1_penalty(discriminate, images_real)`; only run in those steps.
    step: number of updates made, an integer scalar.
    interval: in steps, at least 1; 16 in the paper.

  Returns:
    Float32 of the penalty's shape.

  Raises:
    ValueError: `interval` is less than 1.

  References:
    Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020.
  """
  if interval < 1:
    raise ValueError(f"interval must be at least 1, not {interval}.")
  shape = jax.eval_shape(penalty).shape
  return lax.cond(
    jnp.asarray(step) % interval == 0,
    lambda: interval * penalty().astype(jnp.float32),
    lambda: jnp.zeros(shape, jnp.float32),
  )


def gradient_penalty(
  discriminate: Discriminate,
  images_real: jax.Array,
  images_fake: jax.Array,
  key: jax.Array,
) -> jax.Array:
  """Penalty on gradient norms other than 1 between real and completed images.

  L = (|dD(z)/dz| - 1)^2, z = t x_real + (1 - t) x_fake, t uniform in [0, 1) per pair.

  Args:
    discriminate: as for `r1_penalty`.
    images_real: `[B, H, W, C]` float, in the discriminator's input range.
    images_fake: same shape.
    key: PRNG key.

  Returns:
    `[B]` float32, at least 0; the paper weights it by 10.

  Raises:
    ValueError: shapes do not match, or the logits have no batch axis.

  References:
    Gulrajani et al., Improved Training of Wasserstein GANs, 2017, eq. 3.
  """
  shapes.check_images(images_real, images_fake)
  share = jax.random.uniform(key, (images_real.shape[0], 1, 1, 1))
  between = share * images_real + (1 - share) * images_fake
  squares = _squared_norm(discriminate, between, "images_real")
  # The square root has no finite gradient at 0, where D is constant.
  constant = squares == 0
  norm = jnp.where(constant, 0.0, jnp.sqrt(jnp.where(constant, 1.0, squares)))
  return jnp.square(norm - 1)


def _squared_norm(discriminate, images, name) -> jax.Array:
  """Returns |dD(x)/dx|^2 of each image, `[B]`."""
  if images.ndim != 4:
    raise ValueError(f"{name} must be [B, H, W, C], not {images.shape}.")

  def total(images):
    logits = discriminate(images).astype(jnp.float32)
    shapes.check_logits(logits, "The result of `discriminate`")
    return jnp.sum(jnp.mean(logits, axis=tuple(range(1, logits.ndim))))

  gradients = jax.grad(total)(images).astype(jnp.float32)
  return jnp.sum(jnp.square(gradients), axis=(1, 2, 3))
