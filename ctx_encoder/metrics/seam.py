"""How visible the hole's border is."""

import jax

from ctx_encoder import losses


def seam_error(
  predictions: jax.Array, targets: jax.Array, mask: jax.Array
) -> jax.Array:
  """How far the steps across the hole's border are from the true ones.

  `losses.seam_loss` of images in [0, 1]: the mean over neighbours i, j, one in the hole
  and one outside, of |(predictions_i - predictions_j) - (targets_i - targets_j)|.

  Args:
    predictions: `[B, H, W, C]` in [0, 1], completed images.
    targets: same shape.
    mask: `[B, H, W, 1]`, 1 = hole.

  Returns:
    `[B]` float32 in [0, 2]; 0 where the hole has no border.

  Raises:
    ValueError: shapes do not match.
  """
  return losses.seam_loss(predictions, targets, mask)
