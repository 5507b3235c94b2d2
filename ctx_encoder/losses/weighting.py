"""Weights of pixels, for the argument `weights` of the reconstruction losses."""

import jax
import jax.numpy as jnp

from ctx_encoder import morphology, shapes


def overlap_weights(
  mask: jax.Array, width: int = 7, weight: float = 10.0
) -> tuple[jax.Array, jax.Array]:
  """The hole and a ring of known pixels around it, whose error has a larger weight.

  This makes predictions continuous with the known pixels: `region, weights =
  overlap_weights(mask)`, then `masked_l2(predictions, targets, region,
  weights=weights)`.

  Args:
    mask: `[B, H, W, 1]` of any type, 1 = hole.
    width: width of the ring in pixels; 7 in the paper, 4 in its code; 0 = no ring.
    weight: weight of the ring; the hole has 1.

  Returns:
    The region, 1 in the hole and the ring, and the weights, each `[B, H, W, 1]`
    float32.

  Raises:
    ValueError: the mask's shape or values are wrong, or the width is negative.

  References:
    Pathak et al., Context Encoders, CVPR 2016, section 4.1.
  """
  mask = shapes.checked_mask(mask)
  ring = morphology.border_ring(mask, width)
  return mask + ring, mask + weight * ring


def discounted_weights(mask: jax.Array, discount: float = 0.99) -> jax.Array:
  """Weights that decay towards the hole's centre, where many completions are plausible.

  w = discount^d, d = Euclidean distance to the nearest known pixel.

  Args:
    mask: `[B, H, W, 1]` of any type, 1 = hole.
    discount: in (0, 1]; 0.99 in the paper, for holes of 128 pixels in images of 256.

  Returns:
    `[B, H, W, 1]` float32 in (0, 1], 1 outside the hole; 1 everywhere in images
    without a known pixel.

  Raises:
    ValueError: the mask's shape or values are wrong, or `discount` is out of range.

  References:
    Yu et al., Generative Image Inpainting with Contextual Attention, CVPR 2018,
    section 3.2.
  """
  mask = shapes.checked_mask(mask)
  if not 0 < discount <= 1:
    raise ValueError(f"discount must be in (0, 1], not {discount}.")
  distance = morphology.distance_to_known(mask)
  return jnp.where(jnp.isinf(distance), 1.0, discount**distance)
