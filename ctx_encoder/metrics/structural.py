"""Structural similarity: SSIM and multi-scale SSIM.

The argument `region` selects one of two conventions at the image's border. Without a
region, only windows inside the image count, as in published results, scikit-image's
mean and `tf.image.ssim`. With a region, all its pixels count, and windows that extend
over the border are filled by mirroring (the last pixel twice), as in scikit-image's
`full` map, so that holes at the border are measured too. With `masked` no pixel outside
the region has an influence: windows at its edge average its pixels only.

As a loss: `1 - ssim(completed, targets, mask)`. Other packages agree to 1e-6 but in two
cases: torchmetrics counts mirrored windows too, so its SSIM of small images differs by
1e-2; and MS-SSIM of odd sizes by 6e-4 to 2e-3, as packages halve them differently.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import shapes

# Exponents of the five scales, the finest first: Wang et al. 2003, section 3.2.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

_C1, _C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 for images of range L = 1


def ssim(
  predictions: jax.Array,
  targets: jax.Array,
  region: jax.Array | None = None,
  *,
  masked: bool = False,
  window: int = 11,
  sigma: float = 1.5,
) -> jax.Array:
  """Structural similarity, averaged over a region and the channels.

  With `masked`, the mean of x in a window g is sum(g R x) / sum(g R), R = region, and
  likewise variances and covariance.

  Args:
    predictions: `[B, H, W, C]` in [0, 1].
    targets: same shape.
    region: `[B, H, W, 1]` of any type, 1 = counted, with mirrored borders; None counts
      the pixels whose window lies inside the image.
    masked: whether windows read the region's pixels only; the others may be NaN.
    window, sigma: see `ssim_map`.

  Returns:
    `[B]` float32 in [-1, 1]; 1 where the images are equal or the region is empty.

  Raises:
    ValueError: shapes do not match, the window is even or exceeds the image, or
      `masked` has no region.

  References:
    Wang et al., Image Quality Assessment: From Error Visibility to Structural
    Similarity, IEEE Transactions on Image Processing 13, 2004, eq. 13;
    Knutsson and Westin, Normalized and differential convolution, CVPR 1993 (`masked`).
  """
  predictions, targets = _checked(predictions, targets, region, window, sigma, masked)
  luminance, structure = _similarity(
    predictions, targets, window, sigma, region, masked
  )
  return jnp.mean(_channel_means(luminance * structure, region), axis=1)


def ssim_map(
  predictions: jax.Array,
  targets: jax.Array,
  *,
  window: int = 11,
  sigma: float = 1.5,
) -> jax.Array:
  """Structural similarity at every pixel.

  S = (2 mp mt + C1) (2 cov + C2) / ((mp^2 + mt^2 + C1) (vp + vt + C2)), with the means,
  variances and covariance in a Gaussian window, C1 = 0.01^2 and C2 = 0.03^2. The image
  is mirrored at its border.

  Args:
    predictions: `[B, H, W, C]` in [0, 1].
    targets: same shape.
    window: side of the Gaussian window in pixels, odd.
    sigma: standard deviation of the Gaussian in pixels.

  Returns:
    `[B, H, W, C]` float32 in [-1, 1]; 1 where the images are equal.

  Raises:
    ValueError: shapes do not match, or the window is even or exceeds the image.

  References:
    Wang et al., Image Quality Assessment: From Error Visibility to Structural
    Similarity, IEEE Transactions on Image Processing 13, 2004, eq. 13 to 16.
  """
  predictions, targets = _checked(predictions, targets, None, window, sigma)
  everywhere = jnp.ones((*predictions.shape[:3], 1))
  luminance, structure = _similarity(predictions, targets, window, sigma, everywhere)
  return luminance * structure


def ms_ssim(
  predictions: jax.Array,
  targets: jax.Array,
  region: jax.Array | None = None,
  *,
  masked: bool = False,
  weights: Sequence[float] = MS_SSIM_WEIGHTS,
  window: int = 11,
  sigma: float = 1.5,
) -> jax.Array:
  """Multi-scale structural similarity; each scale has half the size of the one before.

  M = l_K^w_K prod_j cs_j^w_j per channel, averaged over channels: the mean structure
  similarity at every scale, times the mean luminance similarity at the coarsest. Images
  and the region are halved by averaging 2x2 pixels, with the last row and column of odd
  sizes repeated; the halved region is a weight, of the averages too with `masked`.

  Args:
    predictions: `[B, H, W, C]` in [0, 1], more than (window - 1) 2^(K - 1) pixels high
      and wide for K scales: 161 by default. For 128 pixels pass four weights,
      `MS_SSIM_WEIGHTS[:4]`, or a window of 7. Scores of different choices are not
      comparable.
    targets: same shape.
    region, masked: as for `ssim`.
    weights: exponents of the scales, the finest first, not normalised: fewer weights
      have a smaller sum and give scores closer to 1.
    window: side of the Gaussian window in pixels at every scale, odd.
    sigma: standard deviation of the Gaussian in pixels at every scale.

  Returns:
    `[B]` float32 in [0, 1]; 1 where the images are equal or the region is empty.
    Negative mean similarities, which have no real power, count as 0.

  Raises:
    ValueError: shapes do not match, the window is even, the images are too small, the
      weights are none or not positive, or `masked` has no region.

  References:
    Wang et al., Multi-Scale Structural Similarity for Image Quality Assessment,
    Asilomar 2003, eq. 7.
  """
  predictions, targets = _checked(predictions, targets, region, window, sigma, masked)
  _check_scales(predictions.shape, weights, window)
  product = jnp.ones(())
  for scale, weight in enumerate(weights):
    luminance, structure = _similarity(
      predictions, targets, window, sigma, region, masked
    )
    coarsest = scale == len(weights) - 1
    similarity = luminance * structure if coarsest else structure
    product = product * _power(_channel_means(similarity, region), weight)
    if not coarsest:
      weight = region if masked else None
      predictions, targets = _halved(predictions, weight), _halved(targets, weight)
      region = None if region is None else _halved(region.astype(jnp.float32))
  return jnp.mean(product, axis=1)


def _checked(predictions, targets, region, window, sigma, masked=False):
  """Checks the arguments and returns both images in float32."""
  shapes.check_images(predictions, targets)
  if region is not None:
    shapes.check_region(region, predictions.shape)
  if masked and region is None:
    raise ValueError("masked=True needs a region.")
  if window < 1 or window % 2 == 0:
    raise ValueError(f"window must be odd and positive, not {window}.")
  if not sigma > 0:
    raise ValueError(f"sigma must be positive, not {sigma}.")
  if min(predictions.shape[1:3]) < window:
    raise ValueError(
      f"images must be at least as high and wide as the window of {window}, not"
      f" {predictions.shape}; pass a smaller window."
    )
  images = predictions.astype(jnp.float32), targets.astype(jnp.float32)
  if region is None or not masked:
    return images
  return jnp.where(region > 0, images[0], 0), jnp.where(region > 0, images[1], 0)


def _check_scales(shape, weights, window):
  if not len(weights) or not all(weight > 0 for weight in weights):
    raise ValueError(f"weights must be positive, one for each scale, not {weights}.")
  smallest = (window - 1) * 2 ** (len(weights) - 1) + 1
  side = min(shape[1:3])
  if side < smallest:
    scales, wide = 1, (side - 1) // 2 ** (len(weights) - 1) + 1
    while (window - 1) * 2**scales < side:
      scales += 1
    raise ValueError(
      f"images must be at least {smallest} pixels high and wide for {len(weights)}"
      f" scales with a window of {window}, not {shape}; pass at most {scales} weights,"
      f" as weights=MS_SSIM_WEIGHTS[:{scales}], or a window of at most"
      f" {wide - 1 + wide % 2}."
    )


def _similarity(predictions, targets, window, sigma, region, masked=False):
  """Returns luminance and structure similarity at every pixel, `[B, h, w, C]`.

  Both quotients are computed as 1 - (denominator - numerator) / denominator, where the
  difference is the squared difference of the means, and the variance of the difference:
  equal images score exactly 1.
  """
  # E[x^2] - E[x]^2 cancels digits if the mean is large compared with the deviation. So
  # the image's mean is subtracted first, which changes no variance.
  mean_p, mean_t = (
    jax.lax.stop_gradient(jnp.mean(image, axis=(1, 2), keepdims=True))
    for image in (predictions, targets)
  )
  p, t = predictions - mean_p, targets - mean_t
  windows = [
    _windows(size, window, sigma, mirrored=region is not None) for size in p.shape[1:3]
  ]

  def averaged(maps):
    return jnp.einsum(
      "hH,sbHWc,wW->sbhwc",
      windows[0],
      maps,
      windows[1],
      precision=jax.lax.Precision.HIGHEST,
    )

  maps = jnp.stack([p, t, jnp.square(p) + jnp.square(t), jnp.square(p - t)])
  if masked:
    weight = region.astype(jnp.float32)[None]
    share = averaged(weight)
    p, t, squares, squared_difference = averaged(weight * maps) / jnp.where(
      share > 0, share, 1
    )
  else:
    p, t, squares, squared_difference = averaged(maps)
  variances = squares - jnp.square(p) - jnp.square(t)
  of_difference = squared_difference - jnp.square(p - t)
  difference = (p - t) + (mean_p - mean_t)
  luminances = jnp.square(p + mean_p) + jnp.square(t + mean_t)
  luminance = 1 - jnp.square(difference) / (luminances + _C1)
  return luminance, 1 - of_difference / (variances + _C2)


def _windows(size, window, sigma, mirrored):
  """Returns the Gaussian windows along one axis as a matrix `[windows, size]`.

  Matrix products and their gradients are much faster than convolutions of few channels.
  """
  margin = window // 2
  taps = np.exp(-0.5 * (np.arange(-margin, margin + 1) / sigma) ** 2)
  seen = np.pad(np.arange(size), margin, mode="symmetric")
  rows = np.zeros((size, size))
  for offset, tap in enumerate(taps / taps.sum()):
    rows[np.arange(size), seen[offset : offset + size]] += tap
  return (rows if mirrored else rows[margin : size - margin]).astype(np.float32)


def _channel_means(similarity, region):
  """Returns means over the region, `[B, C]`; 1 where it is empty."""
  if region is None:
    return jnp.mean(similarity, axis=(1, 2))
  region = region.astype(jnp.float32)
  count = jnp.sum(region, axis=(1, 2))
  lost = jnp.sum(region * (1 - similarity), axis=(1, 2))
  return 1 - lost / jnp.where(count > 0, count, 1)


def _power(base, exponent):
  """Returns base^exponent; 0 with gradient 0 where the base is not positive."""
  zero = base <= 0  # false for NaN, which is kept
  return jnp.where(zero, 0, jnp.where(zero, 1, base) ** exponent)


def _halved(image, weight=None):
  """Averages 2x2 pixels; the last row and column of odd sizes are repeated."""
  if weight is not None:
    share = _halved(weight.astype(jnp.float32))
    return _halved(weight * image) / jnp.where(share > 0, share, 1)
  batch, height, width, channels = image.shape
  pads = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
  even = jnp.pad(image, pads, mode="symmetric")
  return even.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels).mean(
    axis=(2, 4)
  )
