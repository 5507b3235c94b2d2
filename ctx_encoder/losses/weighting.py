"""Which pixels count how much: the `weights` of the reconstruction losses."""

import jax
import jax.numpy as jnp

from ctx_encoder.losses import _shapes
from ctx_encoder.masks import morphology


def overlap_weights(
  mask: jax.Array, width: int = 7, weight: float = 10.0
) -> tuple[jax.Array, jax.Array]:
  """The hole with a ring of known pixels around it, which counts more.

  The network then has to go on from what is known: `region, weights =
  overlap_weights(mask)`, `masked_l2(predictions, targets, region, weights=weights)`.

  Args:
    mask: `[B, H, W, 1]`, 1 = hole.
    width: of the ring, pixels; 7 in the paper, 4 in its code. 0 gives no ring.
    weight: of the error on the ring; 1 in the hole.

  Returns:
    The region, 1 in the hole and on the ring, and the weights, each `[B, H, W, 1]`.

  Raises:
    ValueError: the mask's shape or values are wrong, or the width is negative.

  References:
    Pathak et al., Context Encoders, CVPR 2016, section 4.1.
  """
  _check(mask)
  ring = morphology.border_ring(mask, width)
  return mask + ring, mask + weight * ring


def discounted_weights(mask: jax.Array, discount: float = 0.99) -> jax.Array:
  """Weights that fall towards the hole's centre, where more than one answer is right.

  discount^d, d being the Euclidean distance to the nearest known pixel.

  Args:
    mask: `[B, H, W, 1]`, 1 = hole.
    discount: in (0, 1]; 0.99 in the paper, for holes of 128 pixels in images of 256.

  Returns:
    `[B, H, W, 1]` float32 in (0, 1], 1 outside the hole; 1 everywhere where an image
    has no known pixel.

  Raises:
    ValueError: the mask's shape or values are wrong, or `discount` is out of its range.

  References:
    Yu et al., Generative Image Inpainting with Contextual Attention, CVPR 2018,
    section 3.2.
  """
  _check(mask)
  if not 0 < discount <= 1:
    raise ValueError(f"discount must be in (0, 1], not {discount}.")
  distance = morphology.distance_to_known(mask)
  return jnp.where(jnp.isinf(distance), 1.0, discount**distance)


def _check(mask: jax.Array) -> None:
  if mask.ndim != 4:
    raise ValueError(f"mask must be [B, H, W, 1], not {mask.shape}.")
  _shapes.check_mask(mask, mask.shape)
