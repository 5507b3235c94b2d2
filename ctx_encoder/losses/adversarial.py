"""The game between the generator and the discriminator, on logits.

Every function takes `[B]` or `[B, ...]` logits (patches, as of a PatchGAN, are
averaged) and returns one value an image. Each game has a loss for either side; what
`fake_patches` gives may be passed to both, so that a patch that sees nothing of a hole
is not called fake. Averages over the fake patches alone are 0 where there is none.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ctx_encoder.losses import _shapes

Penalty = Callable[[jax.Array], jax.Array]


def bce_discriminator_loss(
  logits_real: jax.Array,
  logits_fake: jax.Array,
  *,
  smoothing: float = 0.0,
  fake: jax.Array | None = None,
) -> jax.Array:
  """Binary cross-entropy of telling real images from completed ones.

  L = -(1 - s) log D(real) - s log(1 - D(real)) - log(1 - D(fake)), D = sigmoid(logits),
  s = smoothing, each averaged over the patches of an image.

  Args:
    logits_real: `[B, ...]` float, of real images.
    logits_fake: same shape, of completed images.
    smoothing: in [0, 0.5); real images are labelled 1 - smoothing (one-sided).
    fake: `[B, ...]`, 1 where a patch counts as fake and 0 where it counts as real;
      1 unless given.

  Returns:
    `[B]` float32, at least 0; 2 log 2 = 1.386 where the discriminator has no idea.

  Raises:
    ValueError: shapes do not match, or `smoothing` is out of its range.

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
  """The generator's side of binary cross-entropy.

  L = -log D(fake), or log(1 - D(fake)) with `saturating`, averaged over patches.

  Args:
    logits_fake: `[B, ...]` float, of completed images.
    saturating: whether to take the game's own loss, whose gradient vanishes where the
      discriminator is sure.
    fake: `[B, ...]`, 1 where a patch counts; 1 unless given.

  Returns:
    `[B]` float32, at least 0 (at most 0 if saturating); log 2 = 0.693 (-0.693) where
    the discriminator has no idea.

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
  """Least squares: real images to 1, completed ones to 0.

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
  """The generator's side of least squares: L = (fake - 1)^2 / 2, averaged over patches.

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
  """Hinge: L = max(0, 1 - real) + max(0, 1 + fake), each averaged over patches.

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
  """The generator's side of the hinge: L = -fake, averaged over patches.

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
  """The critic's side of the Wasserstein distance: L = fake - real, patch averages.

  It needs a discriminator of bounded slope, see `gradient_penalty`.

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
  """The generator's side of the Wasserstein distance: L = -fake, averaged over patches.

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
  """Logits relative to the other kind's mean, to be given to any of the games.

  (real - mean(fake), fake - mean(real)). With `real, fake = relativistic_average(...)`
  the discriminator's loss is `bce_discriminator_loss(real, fake)`, the generator's
  `bce_discriminator_loss(fake, real)`: it wants completed images to look more real than
  real ones. The same goes for least squares and the hinge.

  Args:
    logits_real: `[B, ...]` float, of real images.
    logits_fake: same shape, of completed images.
    axis_name: axis of `jax.pmap` or `shard_map` over which the batch is spread.

  Returns:
    Two float32 arrays like the logits. Means are over the batch and all patches.

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
  """Which patches of a discriminator see something of the hole.

  The mask goes through the network's windows, of which each takes the maximum.

  Args:
    mask: `[B, H, W, 1]`, 1 = hole.
    layers: (kernel, stride, padding) of each layer, in the network's order; padding is
      "SAME", "VALID" or a number of pixels at each side. `models.patchgan.windows`
      gives those of the PatchGAN.

  Returns:
    `[B, h, w, 1]` float32, 1 where a patch's receptive field touches the hole; of the
    shape of the PatchGAN's logits.

  Raises:
    ValueError: the mask's shape or values are wrong.
  """
  if mask.ndim != 4:
    raise ValueError(f"mask must be [B, H, W, 1], not {mask.shape}.")
  _shapes.check_mask(mask, mask.shape)
  seen = mask.astype(jnp.float32)
  for kernel, stride, padding in layers:
    if not isinstance(padding, str):
      padding = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    window, strides = (1, kernel, kernel, 1), (1, stride, stride, 1)
    seen = lax.reduce_window(seen, 0.0, lax.max, window, strides, padding)
  return seen


def _discriminator(
  as_real: Penalty, as_fake: Penalty, logits_real, logits_fake, fake
) -> jax.Array:
  _check_pair(logits_real, logits_fake)
  real, completed = logits_real.astype(jnp.float32), logits_fake.astype(jnp.float32)
  penalty = as_fake(completed)
  if fake is not None:
    _check_fake(fake, completed)
    penalty = jnp.where(fake > 0.5, penalty, as_real(completed))
  return _patch_mean(as_real(real)) + _patch_mean(penalty)


def _generator(penalty: Penalty, logits_fake, fake) -> jax.Array:
  _shapes.check_logits(logits_fake, "logits_fake")
  penalties = penalty(logits_fake.astype(jnp.float32))
  if fake is None:
    return _patch_mean(penalties)
  _check_fake(fake, penalties)
  axes = tuple(range(1, fake.ndim))
  count = jnp.sum(fake.astype(jnp.float32), axis=axes)
  total = jnp.sum(fake.astype(jnp.float32) * penalties, axis=axes)
  return total / jnp.where(count > 0, count, 1)


def _patch_mean(penalties: jax.Array) -> jax.Array:
  return jnp.mean(penalties, axis=tuple(range(1, penalties.ndim)))


def _check_pair(logits_real, logits_fake) -> None:
  _shapes.check_logits(logits_real, "logits_real")
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
