"""Losses as functions of arrays; importing them loads jax and NumPy only.

Each returns one float32 value per image; `docs/losses.md` lists them with formulas.
"""

from ctx_encoder.losses.adversarial import (
  bce_discriminator_loss,
  bce_generator_loss,
  fake_patches,
  hinge_discriminator_loss,
  hinge_generator_loss,
  least_squares_discriminator_loss,
  least_squares_generator_loss,
  relativistic_average,
  wasserstein_discriminator_loss,
  wasserstein_generator_loss,
)
from ctx_encoder.losses.color import color_statistics_loss
from ctx_encoder.losses.combine import Weight, combine
from ctx_encoder.losses.frequency import focal_frequency_loss
from ctx_encoder.losses.grid import grid_loss
from ctx_encoder.losses.penalties import (
  gradient_penalty,
  lazy_penalty,
  r1_penalty,
  r2_penalty,
)
from ctx_encoder.losses.perceptual import (
  FeatureFunction,
  content_loss,
  contextual_loss,
  feature_matching,
  gram_matrix,
  style_loss,
)
from ctx_encoder.losses.reconstruction import (
  masked_charbonnier,
  masked_huber,
  masked_l1,
  masked_l2,
  split,
)
from ctx_encoder.losses.smoothness import edge_loss, seam_loss, total_variation
from ctx_encoder.losses.weighting import discounted_weights, overlap_weights

__all__ = [
  "FeatureFunction",
  "Weight",
  "bce_discriminator_loss",
  "bce_generator_loss",
  "color_statistics_loss",
  "combine",
  "content_loss",
  "contextual_loss",
  "discounted_weights",
  "edge_loss",
  "fake_patches",
  "feature_matching",
  "focal_frequency_loss",
  "gradient_penalty",
  "gram_matrix",
  "grid_loss",
  "hinge_discriminator_loss",
  "hinge_generator_loss",
  "lazy_penalty",
  "least_squares_discriminator_loss",
  "least_squares_generator_loss",
  "masked_charbonnier",
  "masked_huber",
  "masked_l1",
  "masked_l2",
  "overlap_weights",
  "r1_penalty",
  "r2_penalty",
  "relativistic_average",
  "seam_loss",
  "split",
  "style_loss",
  "total_variation",
  "wasserstein_discriminator_loss",
  "wasserstein_generator_loss",
]
