"""A loss on colours, whatever their positions."""

import jax
import jax.numpy as jnp

from ctx_encoder import morphology, shapes


def color_statistics_loss(
  images: jax.Array, mask: jax.Array, *, width: int = 16
) -> jax.Array:
  """Difference of the colours' mean and covariance in the hole and around it.

  L = mean over channels of (m - m')^2 + mean over pairs of channels of (S - S')^2, with
  the mean m and covariance S of the hole's pixels, m' and S' of those of a ring of
  known pixels. It needs no original, and also serves as a metric.

  Args:
    images: `[B, H, W, C]` float, any range; completed images.
    mask: `[B, H, W, 1]` of any type, 1 = hole.
    width: width of the ring in pixels, at least 1.

  Returns:
    `[B]` float32, at least 0; 0 where the hole or the ring is empty.

  Raises:
    ValueError: shapes do not match, a known value of the mask is neither 0 nor 1, or
      the width is less than 1.

  References:
    Reinhard et al., Color Transfer between Images, IEEE Computer Graphics and
    Applications 21, 2001 (statistics of colours); Sun and Saenko, Deep CORAL, 2016,
    eq. 1 (squared distance of covariances).
  """
  shapes.check_images(images, images)
  mask = shapes.checked_mask(mask, images.shape)
  if width < 1:
    raise ValueError(f"width must be at least 1, not {width}.")
  images, ring = images.astype(jnp.float32), morphology.border_ring(mask, width)
  means, covariances, counts = zip(
    *(_statistics(images, region) for region in (mask, ring)), strict=True
  )
  loss = jnp.mean(jnp.square(means[0] - means[1]), axis=1)
  loss += jnp.mean(jnp.square(covariances[0] - covariances[1]), axis=(1, 2))
  return jnp.where((counts[0] > 0) & (counts[1] > 0), loss, 0)


def _statistics(images, region):
  """Returns mean `[B, C]`, covariance `[B, C, C]` and number of pixels `[B]`."""
  count = jnp.sum(region, axis=(1, 2, 3))
  share = region / jnp.where(count > 0, count, 1)[:, None, None, None]
  mean = jnp.sum(share * images, axis=(1, 2))
  centered = images - mean[:, None, None]
  covariance = jnp.einsum(
    "bhwi,bhwj->bij", share * centered, centered, precision="highest"
  )
  return mean, covariance, count
