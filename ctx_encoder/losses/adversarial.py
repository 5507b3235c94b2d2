"""Adversarial losses of the discriminator and the generator, on logits.

Logits are `[B, ...]`, one for each patch of a PatchGAN; losses are means over patches,
`[B]`. Patches whose receptive field contains no pixel of the hole can be labelled as
real: pass the result of `fake_patches` as `fake=` to both losses. The generator's loss
is then the mean over the fake patches, 0 where there is none. Labels between 0 and 1,
such as a blurred mask, mix the losses of the two labels (Zeng et al., Aggregated
Contextual Transformations for High-Resolution Image Inpainting, 2021, section 3.2).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ctx_encoder import shapes

Penalty = Callable[[jax.Array], jax.Array]


def bce_discriminator_loss(
  logits_real: jax.Array,
  logits_fake: jax.Array,
  *,
  smoothing: float = 0.0,
  fake: jax.Array | None = None,
) -> jax.Array:
  """Binary cross-entropy of the discriminator.

  L = -(1 - s) log D(real) - s log(1 - D(real)) - log(1 - D(fake)), D = sigmoid(logits),
  s = smoothing, each averaged over the patches of an image.

  Args:
    logits_real: `[B, ...]` float, for real images.
    logits_fake: same shape, for completed images.
    smoothing: in [0, 0.5); real images are labelled 1 - smoothing (one-sided).
    fake: `[B, ...]` of any type, in [0, 1]: 1 = patch labelled fake, 0 = labelled
      real; None = 1.

  Returns:
    `[B]` float32, at least 0; 2 log 2 = 1.386 for logits of 0.

  Raises:
    ValueError: shapes do not match, or `smoothing` is out of range.

  References:
    Goodfellow et al., Generative Adversarial Networks, 2014, eq. 1;
    Pathak et al., Context Encoders, CVPR 2016, eq. 2;
    Salimans et al., Improved Techniques for Training GANs, 2016, section 3.4.
  """
  _check_smoothing(smoothing)

  def as_real(logits):
    certain = jax.nn.softplus(-logits)
    return certain + smoothing * logits  # softplus(l) = softplus(-l) + l

  return _discriminator(as_real, jax.nn.softplus, logits_real, logits_fake, fake)


def bce_generator_loss(
  logits_fake: jax.Array, *, saturating: bool = False, fake: jax.Array | None = None
) -> jax.Array:
  """Binary cross-entropy of the generator: the non-saturating logistic loss.

  L = -log D(fake) = softplus(-logits), or with `saturating` the minimax loss
  log(1 - D(fake)), averaged over patches.

  Args:
    logits_fake: `[B, ...]` float, for completed images.
    saturating: whether to use the minimax loss, whose gradient vanishes where the
      discriminator classifies completed images correctly.
    fake: `[B, ...]` of any type, weights of the patches in the mean; None = 1.

  Returns:
    `[B]` float32, at least 0 (at most 0 if saturating); log 2 = 0.693 (-0.693) for
    logits of 0.

  Raises:
    ValueError: shapes do not match.

  References:
    Goodfellow et al., Generative Adversarial Networks, 2014, section 3.
  """

  def penalty(logits):
    return -jax.nn.softplus(logits) if saturating else jax.nn.softplus(-logits)

  return _generator(penalty, logits_fake, fake)


def least_squares_discriminator_loss(
  logits_real: jax.Array,
  logits_fake: jax.Array,
  *,
  smoothing: float = 0.0,
  fake: jax.Array | None = None,
) -> jax.Array:
  """Least-squares loss of the discriminator: targets 1 for real, 0 for completed.

  L = ((real - (1 - smoothing))^2 + fake^2) / 2, each averaged over patches.

  Args:
    logits_real, logits_fake, smoothing, fake: as for `bce_discriminator_loss`.

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: as for `bce_discriminator_loss`.

  References:
    Mao et al., Least Squares Generative Adversarial Networks, ICCV 2017, eq. 2 with
    a = 0, b = 1.
  """
  _check_smoothing(smoothing)

  def as_real(logits):
    return jnp.square(logits - (1 - smoothing)) / 2

  def as_fake(logits):
    return jnp.square(logits) / 2

  return _discriminator(as_real, as_fake, logits_real, logits_fake, fake)


def least_squares_generator_loss(
  logits_fake: jax.Array, *, fake: jax.Array | None = None
) -> jax.Array:
  """Least-squares loss of the generator: L = (fake - 1)^2 / 2, averaged over patches.

  Args:
    logits_fake, fake: as for `bce_generator_loss`.

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: shapes do not match.

  References:
    Mao et al., Least Squares Generative Adversarial Networks, ICCV 2017, eq. 2 with
    c = 1.
  """
  return _generator(lambda logits: jnp.square(logits - 1) / 2, logits_fake, fake)


def hinge_discriminator_loss(
  logits_real: jax.Array, logits_fake: jax.Array, *, fake: jax.Array | None = None
) -> jax.Array:
  """Hinge loss of the discriminator.

  L = max(0, 1 - real) + max(0, 1 + fake), each averaged over patches.

  Args:
    logits_real, logits_fake, fake: as for `bce_discriminator_loss`.

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: shapes do not match.

  References:
    Lim and Ye, Geometric GAN, 2017; Miyato et al., Spectral Normalization for
    Generative Adversarial Networks, ICLR 2018, eq. 16.
  """
  return _discriminator(
    lambda logits: jax.nn.relu(1 - logits),
    lambda logits: jax.nn.relu(1 + logits),
    logits_real,
    logits_fake,
    fake,
  )


def hinge_generator_loss(
  logits_fake: jax.Array, *, fake: jax.Array | None = None
) -> jax.Array:
  """Hinge loss of the generator: L = -fake, averaged over patches.

  Args:
    logits_fake, fake: as for `bce_generator_loss`.

  Returns:
    `[B]` float32, of either sign.

  Raises:
    ValueError: shapes do not match.

  References:
    Miyato et al., Spectral Normalization for Generative Adversarial Networks, ICLR
    2018, eq. 17.
  """
  return _generator(jnp.negative, logits_fake, fake)


def wasserstein_discriminator_loss(
  logits_real: jax.Array, logits_fake: jax.Array, *, fake: jax.Array | None = None
) -> jax.Array:
  """Wasserstein loss of the critic: L = fake - real, each averaged over patches.

  The critic must be 1-Lipschitz; `gradient_penalty` enforces this approximately.

  Args:
    logits_real, logits_fake, fake: as for `bce_discriminator_loss`.

  Returns:
    `[B]` float32, of either sign.

  Raises:
    ValueError: shapes do not match.

  References:
    Arjovsky et al., Wasserstein GAN, ICML 2017, eq. 2.
  """
  return _discriminator(jnp.negative, jnp.positive, logits_real, logits_fake, fake)


def wasserstein_generator_loss(
  logits_fake: jax.Array, *, fake: jax.Array | None = None
) -> jax.Array:
  """Wasserstein loss of the generator: L = -fake, averaged over patches.

  Args:
    logits_fake, fake: as for `bce_generator_loss`.

  Returns:
    `[B]` float32, of either sign.

  Raises:
    ValueError: shapes do not match.

  References:
    Arjovsky et al., Wasserstein GAN, ICML 2017, algorithm 1.
  """
  return _generator(jnp.negative, logits_fake, fake)


def relativistic_average(
  logits_real: jax.Array, logits_fake: jax.Array, *, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
  """Relativistic average logits, for the discriminator losses of this module.

  (real - mean(fake), fake - mean(real)). With `real, fake = relativistic_average(...)`
  the discriminator's loss is `bce_discriminator_loss(real, fake)`, the generator's
  `bce_discriminator_loss(fake, real)`; likewise for least squares and hinge.

  Args:
    logits_real: `[B, ...]` float, for real images.
    logits_fake: same shape, for completed images.
    axis_name: axis of `jax.pmap` or `shard_map` that the batch is split over.

  Returns:
    Two float32 arrays of the logits' shape. Means are over the batch and all patches.

  Raises:
    ValueError: shapes do not match.

  References:
    Jolicoeur-Martineau, The relativistic discriminator, ICLR 2019, section 4.2.
  """
  _check_pair(logits_real, logits_fake)

  def mean(logits):
    value = jnp.mean(logits)
    return lax.pmean(value, axis_name) if axis_name else value

  real, fake = logits_real.astype(jnp.float32), logits_fake.astype(jnp.float32)
  return real - mean(fake), fake - mean(real)


def fake_patches(
  mask: jax.Array, layers: Sequence[tuple[int, int, str | int]]
) -> jax.Array:
  """Patches of a discriminator whose receptive field contains pixels of the hole.

  Computed by max-pooling the mask with the kernel and stride of each layer.

  Args:
    mask: `[B, H, W, 1]` of any type, 1 = hole.
    layers: (kernel, stride, padding) of each layer, from the image to the logits;
      padding is "SAME", "VALID" or a number of pixels on each side. For the PatchGAN
      see `models.patchgan.windows`.

  Returns:
    `[B, h, w, 1]` float32, the logits' shape; 1 = the receptive field contains a pixel
    of the hole.

  Raises:
    ValueError: the mask's shape or values are wrong.
  """
  fake = shapes.checked_mask(mask)
  for kernel, stride, padding in layers:
    if not isinstance(padding, str):
      padding = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    window, strides = (1, kernel, kernel, 1), (1, stride, stride, 1)
    fake = lax.reduce_window(fake, 0.0, lax.max, window, strides, padding)
  return fake


def _discriminator(
  as_real: Penalty, as_fake: Penalty, logits_real, logits_fake, fake
) -> jax.Array:
  _check_pair(logits_real, logits_fake)
  real, completed = logits_real.astype(jnp.float32), logits_fake.astype(jnp.float32)
  penalty = as_fake(completed)
  if fake is not None:
    _check_fake(fake, completed)
    fake = fake.astype(jnp.float32)
    penalty = fake * penalty + (1 - fake) * as_real(completed)
  return _patch_mean(as_real(real)) + _patch_mean(penalty)


def _generator(penalty: Penalty, logits_fake, fake) -> jax.Array:
  shapes.check_logits(logits_fake, "logits_fake")
  penalties = penalty(logits_fake.astype(jnp.float32))
  if fake is None:
    return _patch_mean(penalties)
  _check_fake(fake, penalties)
  axes = tuple(range(1, fake.ndim))
  fake = fake.astype(jnp.float32)
  count = jnp.sum(fake, axis=axes)
  total = jnp.sum(fake * penalties, axis=axes)
  return total / jnp.where(count > 0, count, 1)


def _patch_mean(penalties: jax.Array) -> jax.Array:
  return jnp.mean(penalties, axis=tuple(range(1, penalties.ndim)))


def _check_pair(logits_real, logits_fake) -> None:
  shapes.check_logits(logits_real, "logits_real")
  if logits_real.shape != logits_fake.shape:
    raise ValueError(
      "logits_real and logits_fake must have one shape, not"
      f" {logits_real.shape} and {logits_fake.shape}."
    )


def _check_fake(fake, logits) -> None:
  if fake.shape != logits.shape:
    raise ValueError(
      f"fake must have the shape of the logits, {logits.shape}, not {fake.shape}."
    )


def _check_smoothing(smoothing: float) -> None:
  if not 0 <= smoothing < 0.5:
    raise ValueError(f"smoothing must be in [0, 0.5), not {smoothing}.")
