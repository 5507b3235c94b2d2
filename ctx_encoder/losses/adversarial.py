"""The game between the generator and the discriminator, on logits.

Every function takes `[B]` or `[B, ...]` logits (patches, as of a PatchGAN, are
averaged) and returns one value an example.
"""

import jax
import jax.numpy as jnp

from ctx_encoder.losses import _shapes


def discriminator_loss(logits_real: jax.Array, logits_fake: jax.Array) -> jax.Array:
  """Binary cross-entropy of telling real images from completed ones.

  L = -log D(real) - log(1 - D(fake)) with D = sigmoid(logits), each averaged over the
  patches of an image.

  Args:
    logits_real: `[B, ...]` float, of real images.
    logits_fake: same shape, of completed images.

  Returns:
    `[B]` float32, at least 0; 2 log 2 = 1.386 where the discriminator has no idea.

  Raises:
    ValueError: shapes do not match.

  References:
    Goodfellow et al., Generative Adversarial Networks, 2014, eq. 1;
    Pathak et al., Context Encoders, CVPR 2016, eq. 2.
  """
  _shapes.check_logits(logits_real, "logits_real")
  if logits_real.shape != logits_fake.shape:
    raise ValueError(
      "logits_real and logits_fake must have one shape, not"
      f" {logits_real.shape} and {logits_fake.shape}."
    )
  real = _patch_mean(jax.nn.softplus(-logits_real.astype(jnp.float32)))
  fake = _patch_mean(jax.nn.softplus(logits_fake.astype(jnp.float32)))
  return real + fake


def generator_loss(logits_fake: jax.Array) -> jax.Array:
  """Non-saturating loss of the generator: -log D(fake), averaged over patches.

  Args:
    logits_fake: `[B, ...]` float, of completed images.

  Returns:
    `[B]` float32, at least 0; log 2 = 0.693 where the discriminator has no idea.

  Raises:
    ValueError: there is no batch axis.

  References:
    Goodfellow et al., Generative Adversarial Networks, 2014, section 3.
  """
  _shapes.check_logits(logits_fake, "logits_fake")
  return _patch_mean(jax.nn.softplus(-logits_fake.astype(jnp.float32)))


def _patch_mean(loss: jax.Array) -> jax.Array:
  return jnp.mean(loss, axis=tuple(range(1, loss.ndim)))
