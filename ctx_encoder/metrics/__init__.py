"""How good completions are, as the papers report it.

`pixelwise` and `structural` compare images with their targets: they take images in
[0, 1] and a region `[B, H, W, 1]` (1 = counted), and return one value an image;
averaging over images is the caller's. `distributions` compares two sets of images by
any features of them, in NumPy on the host:

  real, completed = metrics.Reservoir(5000), metrics.Reservoir(5000)
  for images, completions in batches:
    real.add(features(images))
    completed.add(features(completions))
  metrics.kernel_distance(real.features, completed.features)
"""

from ctx_encoder.metrics.distributions import (
  KernelDistance,
  Moments,
  frechet_distance,
  kernel_distance,
  merge_moments,
  moments,
)
from ctx_encoder.metrics.pixelwise import (
  PSNR_CAP,
  by_region,
  center_patch,
  l1,
  l2,
  psnr,
)
from ctx_encoder.metrics.reservoir import Reservoir
from ctx_encoder.metrics.seam import seam_error
from ctx_encoder.metrics.structural import MS_SSIM_WEIGHTS, ms_ssim, ssim, ssim_map

__all__ = [
  "MS_SSIM_WEIGHTS",
  "PSNR_CAP",
  "KernelDistance",
  "Moments",
  "Reservoir",
  "by_region",
  "center_patch",
  "frechet_distance",
  "kernel_distance",
  "l1",
  "l2",
  "merge_moments",
  "moments",
  "ms_ssim",
  "psnr",
  "seam_error",
  "ssim",
  "ssim_map",
]
