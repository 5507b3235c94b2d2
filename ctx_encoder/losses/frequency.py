"""A loss on the spectrum of the error."""

import jax
import jax.numpy as jnp

from ctx_encoder import shapes


def focal_frequency_loss(
  predictions: jax.Array,
  targets: jax.Array,
  mask: jax.Array | None = None,
  *,
  alpha: float = 1.0,
  patch_factor: int = 1,
  log_matrix: bool = False,
) -> jax.Array:
  """Mean squared error of the spectrum, with larger weights for larger errors.

  L = mean over frequencies and channels of w |F|^2, F = the orthonormal Fourier
  transform of the error, w = |F|^alpha divided by its maximum over an image's
  frequencies. No gradient flows through w.

  Args:
    predictions: `[B, H, W, C]` float, any range, the same as `targets`.
    targets: same shape.
    mask: `[B, H, W, 1]` of any type, 1 = hole: only errors there count; None = all do,
      which for completed images is the same.
    alpha: at least 0; 0 gives the mean squared error of the pixels.
    patch_factor: transforms patches of 1 / patch_factor of the height and the width.
    log_matrix: whether the weights are log(1 + |F|^alpha).

  Returns:
    `[B]` float32, at least 0.

  Raises:
    ValueError: shapes do not match, a known value of the mask is neither 0 nor 1, or
      the sides are no multiples of `patch_factor`.

  References:
    Jiang et al., Focal Frequency Loss for Image Reconstruction and Synthesis, ICCV
    2021, eq. 8 to 10.
  """
  error = shapes.error(predictions, targets)
  batch, height, width, channels = predictions.shape
  if patch_factor < 1 or height % patch_factor or width % patch_factor:
    raise ValueError(
      f"patch_factor must divide the sides of the images {predictions.shape}, unlike"
      f" {patch_factor}."
    )
  if mask is not None:
    error *= shapes.checked_mask(mask, predictions.shape)
  sides = height // patch_factor, width // patch_factor
  patches = error.reshape(
    batch, patch_factor, sides[0], patch_factor, sides[1], channels
  )
  spectrum = jnp.fft.fft2(patches, axes=(2, 4), norm="ortho")
  energy = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  weight = jax.lax.stop_gradient(energy) ** (alpha / 2)
  if log_matrix:
    weight = jnp.log1p(weight)
  largest = jnp.max(weight, axis=(2, 4), keepdims=True)
  weight /= jnp.where(largest == 0, 1, largest)
  return jnp.mean(weight * energy, axis=(1, 2, 3, 4, 5))
