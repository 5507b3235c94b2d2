"""How alike two images look: SSIM and its version of several scales.

Both have two conventions at the border of the image, and the argument `region` chooses.
Without a region, only windows that lie within the image count: the figure that papers
print, and that of scikit-image's mean and of `tf.image.ssim`. With a region, every
pixel of it counts, and windows that reach over the border see the image mirrored there
(its last pixel twice), as in scikit-image's `full` map: a hole at the border has pixels
to be measured too.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder.metrics import pixelwise

# Exponents of the five scales, the finest first: Wang et al. 2003, section 3.2.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

_C1, _C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 for images of range L = 1


def ssim(
  predictions: jax.Array,
  targets: jax.Array,
  region: jax.Array | None = None,
  *,
  window: int = 11,
  sigma: float = 1.5,
) -> jax.Array:
  """Structural similarity, averaged over a region and the channels.

  Args:
    predictions: `[B, H, W, C]` in [0, 1].
    targets: same shape.
    region: `[B, H, W, 1]`, 1 = counted, with mirrored borders; None counts the pixels
      whose window lies within the image.
    window: see `ssim_map`.
    sigma: see `ssim_map`.

  Returns:
    `[B]` float32 in [-1, 1]; 1 where the images are equal, and where the region is
    empty, as PSNR is given its cap there.

  Raises:
    ValueError: shapes do not match, or the window is even or exceeds the image.

  References:
    Wang et al., Image Quality Assessment: From Error Visibility to Structural
    Similarity, IEEE Transactions on Image Processing 13, 2004, eq. 13.
  """
  predictions, targets = _checked(predictions, targets, region, window, sigma)
  luminance, structure = _similarity(
    predictions, targets, window, sigma, mirrored=region is not None
  )
  return jnp.mean(_channel_means(luminance * structure, region), axis=1)


def ssim_map(
  predictions: jax.Array,
  targets: jax.Array,
  *,
  window: int = 11,
  sigma: float = 1.5,
) -> jax.Array:
  """Structural similarity around every pixel.

  S = (2 mp mt + C1) (2 cov + C2) / ((mp^2 + mt^2 + C1) (vp + vt + C2)), with the means,
  variances and covariance of a Gaussian window, C1 = 0.01^2 and C2 = 0.03^2. Windows
  that reach over the border see the image mirrored.

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
  luminance, structure = _similarity(predictions, targets, window, sigma, mirrored=True)
  return luminance * structure


def ms_ssim(
  predictions: jax.Array,
  targets: jax.Array,
  region: jax.Array | None = None,
  *,
  weights: Sequence[float] = MS_SSIM_WEIGHTS,
  window: int = 11,
  sigma: float = 1.5,
) -> jax.Array:
  """Structural similarity over several scales, each half as fine as the one before.

  M = l_K^w_K prod_j cs_j^w_j: the mean similarity of structure at every scale and, at
  the coarsest, of luminance too, by channel; then the mean over the channels. Images
  and the region are halved by averaging 2x2 pixels, the last row and column of an odd
  size twice; the region's averages are weights.

  Args:
    predictions: `[B, H, W, C]` in [0, 1], more than (window - 1) 2^(K - 1) pixels high
      and wide for K scales: 161 by default. For 128 pixels pass four weights,
      `MS_SSIM_WEIGHTS[:4]`, or a window of 7; scores of one choice compare.
    targets: same shape.
    region: `[B, H, W, 1]`, 1 = counted, with mirrored borders; None counts the pixels
      whose window lies within the image.
    weights: exponents of the scales, the finest first, used as they are: fewer of them
      sum to less than 1, and the score is the nearer to 1.
    window: side of the Gaussian window in pixels at every scale, odd.
    sigma: standard deviation of the Gaussian in pixels at every scale.

  Returns:
    `[B]` float32 in [0, 1]; 1 where the images are equal or the region is empty. A mean
    similarity below 0, which has no power, counts as 0.

  Raises:
    ValueError: shapes do not match, the window is even, the images are too small, or
      the weights are none or not positive.

  References:
    Wang et al., Multi-Scale Structural Similarity for Image Quality Assessment,
    Asilomar 2003, eq. 7.
  """
  predictions, targets = _checked(predictions, targets, region, window, sigma)
  _check_scales(predictions.shape, weights, window)
  product = jnp.ones(())
  for scale, weight in enumerate(weights):
    luminance, structure = _similarity(
      predictions, targets, window, sigma, mirrored=region is not None
    )
    coarsest = scale == len(weights) - 1
    similarity = luminance * structure if coarsest else structure
    product = product * _power(_channel_means(similarity, region), weight)
    if not coarsest:
      predictions, targets = _halved(predictions), _halved(targets)
      region = None if region is None else _halved(region.astype(jnp.float32))
  return jnp.mean(product, axis=1)


def _checked(predictions, targets, region, window, sigma):
  """Returns both images in float32, or raises."""
  pixelwise.check_images(predictions, targets)
  if region is not None:
    pixelwise.check_region(region, predictions.shape)
  if window < 1 or window % 2 == 0:
    raise ValueError(f"window must be odd and positive, not {window}.")
  if not sigma > 0:
    raise ValueError(f"sigma must be positive, not {sigma}.")
  if min(predictions.shape[1:3]) < window:
    raise ValueError(
      f"images must be at least as high and wide as the window of {window}, not"
      f" {predictions.shape}; pass a smaller window."
    )
  return predictions.astype(jnp.float32), targets.astype(jnp.float32)


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


def _similarity(predictions, targets, window, sigma, *, mirrored):
  """Returns luminance and structure around every pixel, `[B, h, w, C]`.

  Of the formula's two quotients, the numerators are the denominators less the squared
  difference of the means, and less the variance of the difference: so written, equal
  images score exactly 1.
  """
  # E[x^2] - E[x]^2 loses float32's digits where the mean is large beside the deviation,
  # and no variance depends on what is subtracted first: the image's own mean.
  mean_p, mean_t = (
    jax.lax.stop_gradient(jnp.mean(image, axis=(1, 2), keepdims=True))
    for image in (predictions, targets)
  )
  p, t = predictions - mean_p, targets - mean_t
  p, t, squares, squared_difference = jnp.einsum(
    "hH,sbHWc,wW->sbhwc",
    _windows(p.shape[1], window, sigma, mirrored),
    jnp.stack([p, t, jnp.square(p) + jnp.square(t), jnp.square(p - t)]),
    _windows(p.shape[2], window, sigma, mirrored),
    precision=jax.lax.Precision.HIGHEST,
  )
  variances = squares - jnp.square(p) - jnp.square(t)
  of_difference = squared_difference - jnp.square(p - t)
  difference = (p - t) + (mean_p - mean_t)
  luminances = jnp.square(p + mean_p) + jnp.square(t + mean_t)
  luminance = 1 - jnp.square(difference) / (luminances + _C1)
  return luminance, 1 - of_difference / (variances + _C2)


def _windows(size, window, sigma, mirrored):
  """Returns the Gaussian windows of a line of pixels, one a row: `[windows, size]`.

  As matrices: they are far quicker than narrow convolutions of few channels, and so are
  their gradients.
  """
  margin = window // 2
  taps = np.exp(-0.5 * (np.arange(-margin, margin + 1) / sigma) ** 2)
  seen = np.pad(np.arange(size), margin, mode="symmetric")
  rows = np.zeros((size, size))
  for offset, tap in enumerate(taps / taps.sum()):
    rows[np.arange(size), seen[offset : offset + size]] += tap
  return (rows if mirrored else rows[margin : size - margin]).astype(np.float32)


def _channel_means(similarity, region):
  """Means over the region, `[B, C]`; 1 where it is empty."""
  if region is None:
    return jnp.mean(similarity, axis=(1, 2))
  region = region.astype(jnp.float32)
  count = jnp.sum(region, axis=(1, 2))
  lost = jnp.sum(region * (1 - similarity), axis=(1, 2))
  return 1 - lost / jnp.where(count > 0, count, 1)


def _power(base, exponent):
  """Returns base^exponent; 0, and so its gradient, where the base is not positive."""
  zero = base <= 0  # NaN is not, and stays
  return jnp.where(zero, 0, jnp.where(zero, 1, base) ** exponent)


def _halved(image):
  """Averages 2x2 pixels; the last row and column of an odd size count twice."""
  batch, height, width, channels = image.shape
  pads = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
  even = jnp.pad(image, pads, mode="symmetric")
  return even.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels).mean(
    axis=(2, 4)
  )
