"""Texture features without training: one layer of random filters of several sizes.

Their statistics suffice for texture synthesis, so they can replace a trained network in
a style loss, at a lower cost.

References: Ustyuzhaninov, Brendel, Gatys and Bethge, What does it take to generate
  natural textures?, ICLR 2017 (there 128 filters each of up to 55x55 pixels).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ctx_encoder import pixels
from ctx_encoder.models.ops import conv

# sqrt(mean(relu(w * x)^2)) for photographs of 64 to 256 pixels and filters of unit norm
# is 0.09 to 0.12 for all filter sizes.
_RESPONSE = 0.1

FeatureFunction = Callable[[jax.Array], dict[str, jax.Array]]


def multi_scale_features(
  key: jax.Array, *, kernels: Sequence[int] = (3, 5, 7, 11, 15), channels: int = 32
) -> FeatureFunction:
  """Returns a function from images to features of fixed random filters.

  For each kernel size k the features are relu(10 w * x). The filters w are k x k x 3
  standard normal values minus their mean, divided by their norm; the factor 10 gives
  features of about 1 for photographs. There is no padding, and large filters have the
  stride s: this changes Gram matrices of 128-pixel photographs by 2 to 7 % (median),
  while those of two photographs differ by about 90 %.

  Args:
    key: PRNG key; filters of a size depend on the key and that size only.
    kernels: filter sizes, pixels, at least 3.
    channels: number of filters of each size.

  Returns:
    Function of `[B, H, W, 3]` in [0, 1] to `{"filters{k}": [B, h, w, channels]}`,
    float32, h = (H - k) // s + 1 with s = (k + 1) // 4. It is a pytree whose leaves
    are the filters.

  Raises:
    ValueError: a kernel has fewer than 3 pixels, or there are no channels. The
      function itself raises it for images of a wrong shape or smaller than a filter.
  """
  if channels < 1 or not kernels or min(kernels) < 3:
    raise ValueError(
      f"kernels must be at least 3 and channels at least 1, not {kernels} and"
      f" {channels}."
    )
  filters = {k: _filters(jax.random.fold_in(key, k), k, channels) for k in kernels}
  return jax.tree_util.Partial(_features, filters)


def pyramid(features: FeatureFunction, levels: int = 3) -> FeatureFunction:
  """Returns features of images at full size, at half size, at a quarter and so on.

  On smaller images small filters respond to large strokes. Large filters with a stride
  do so too, but a loss on them can also be lowered by patterns with that period.

  Args:
    features: function of images in [0, 1] to `{layer: [B, h, w, C]}`, a pytree.
    levels: number of image sizes, at least 1.

  Returns:
    Function of `[B, H, W, 3]` to `{"{layer}/{2**level}": [B, h, w, C]}`, also a pytree.
  """

  def at_all_sizes(features, images):
    batch, height, width, _ = images.shape
    found = {}
    for factor in (2**level for level in range(levels)):
      size = (batch, height // factor, width // factor, 3)
      smaller = pixels.resize(images, size)
      found |= {f"{k}/{factor}": x for k, x in features(smaller).items()}
    return found

  return jax.tree_util.Partial(at_all_sizes, features)


def _filters(key: jax.Array, kernel: int, channels: int) -> jax.Array:
  filters = jax.random.normal(key, (kernel, kernel, 3, channels))
  filters -= jnp.mean(filters, axis=(0, 1, 2), keepdims=True)
  norm = jnp.sqrt(jnp.sum(jnp.square(filters), axis=(0, 1, 2), keepdims=True))
  return filters / (norm * _RESPONSE)


def _features(filters: dict[int, jax.Array], images: jax.Array) -> dict[str, jax.Array]:
  largest = max(filters)
  if images.ndim != 4 or images.shape[3] != 3 or min(images.shape[1:3]) < largest:
    raise ValueError(
      f"images must be [B, H, W, 3] with sides of at least {largest} pixels, not"
      f" {images.shape}."
    )
  images = images.astype(jnp.float32)
  return {
    f"filters{kernel}": jax.nn.relu(_convolve(images, weights, (kernel + 1) // 4))
    for kernel, weights in filters.items()
  }


def _convolve(images, filters, stride):
  dimensions = ("NHWC", "HWIO", "NHWC")
  return conv.conv_general_dilated(
    images, filters, (stride, stride), "VALID", dimension_numbers=dimensions
  )
