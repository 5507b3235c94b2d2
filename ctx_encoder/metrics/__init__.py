"""Metrics of completed images; importing them loads jax and NumPy only.

`pixelwise`, `structural` and `grid` return one value per image, to be averaged by the
caller. They take images in [0, 1] and a region `[B, H, W, 1]` (1 = counted) or a mask
(1 = hole). `distributions` and `fidelity` compare two sets of images by the features of
a network, in NumPy on the host:

  real, completed = metrics.Reservoir(5000), metrics.Reservoir(5000)
  for images, completions in batches:
    real.add(features(images))
    completed.add(features(completions))
  metrics.kernel_distance(real.features, completed.features)

`intervals` has confidence intervals, and `headings` the names of metrics in tables.
"""

from ctx_encoder.losses import seam_loss as seam_error
from ctx_encoder.metrics.distributions import (
  Moments,
  Reservoir,
  frechet_distance,
  kernel_distance,
  merge_moments,
  moments,
)
from ctx_encoder.metrics.fidelity import (
  DiscriminativeScores,
  PrecisionRecall,
  discriminative_scores,
  precision_recall,
)
from ctx_encoder.metrics.grid import grid_energy
from ctx_encoder.metrics.intervals import Interval
from ctx_encoder.metrics.pixelwise import (
  PSNR_CAP,
  by_region,
  center_patch,
  l1,
  l2,
  psnr,
)
from ctx_encoder.metrics.structural import MS_SSIM_WEIGHTS, ms_ssim, ssim, ssim_map

multi_scale_ssim = ms_ssim  # its name in other packages

__all__ = [
  "MS_SSIM_WEIGHTS",
  "PSNR_CAP",
  "DiscriminativeScores",
  "Interval",
  "Moments",
  "PrecisionRecall",
  "Reservoir",
  "by_region",
  "center_patch",
  "discriminative_scores",
  "frechet_distance",
  "grid_energy",
  "kernel_distance",
  "l1",
  "l2",
  "merge_moments",
  "moments",
  "ms_ssim",
  "multi_scale_ssim",
  "precision_recall",
  "psnr",
  "seam_error",
  "ssim",
  "ssim_map",
]
