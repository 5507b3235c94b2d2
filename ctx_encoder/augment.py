"""Augmentation on the device: pure functions of a PRNG key and an image.

  augment = make_augment(image_size=128, rotation=10, zoom=0.2, flip_horizontal=0.5)
  images = for_examples(augment, key, index, images)

Operations of strength 0 are not traced. Rotation and zoom share one bilinear
resampling; without them, crops and flips copy pixels exactly.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Augment = Callable[[jax.Array, jax.Array], jax.Array]

# All are drawn from [-1, 1) whatever is on: enabling one operation does not change the
# values that the same key gives for the others.
_DRAWS: tuple[str, ...] = (
  "rotation",
  "zoom",
  "top",
  "left",
  "shift_y",
  "shift_x",
  "flip_horizontal",
  "flip_vertical",
  "brightness",
  "contrast",
  "saturation",
  "hue",
)


def make_augment(
  *,
  image_size: int,
  rotation: float = 0.0,
  zoom: float = 0.0,
  crop: float = 0.0,
  flip_horizontal: float = 0.0,
  flip_vertical: float = 0.0,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  hue: float = 0.0,
) -> Augment:
  """Returns `augment(key, image)`: `[H, W, 3]` to `[image_size, image_size, 3]`.

  Images are float32 in [0, 1], H and W at least `image_size`; larger ones are cropped
  at a random position. Outside the image, pixels are reflected.

  Args:
    image_size: side of the result in pixels.
    rotation: largest angle in either direction, degrees.
    zoom: the image is enlarged by a factor from [1, 1 + zoom].
    crop: largest shift in either direction along both axes, as a share of `image_size`.
    flip_horizontal: probability of a left-right flip.
    flip_vertical: probability of an upside-down flip.
    brightness: largest value that is added or subtracted, for values in [0, 1].
    contrast: differences from each channel's mean are multiplied by 1 - contrast to
      1 + contrast.
    saturation: HSV saturation is multiplied by 1 - saturation to 1 + saturation.
    hue: largest change of the hue in either direction; 1 = the full circle.

  Raises:
    ValueError: a strength is out of range; when traced, an image is too small.
  """
  _check_range(180, rotation=rotation)
  _check_range(4, zoom=zoom)
  _check_range(0.5, crop=crop)
  _check_range(1, flip_horizontal=flip_horizontal, flip_vertical=flip_vertical)
  colors = _make_colors(brightness, contrast, saturation, hue)

  def augment(key: jax.Array, image: jax.Array) -> jax.Array:
    draws = jax.random.uniform(key, (len(_DRAWS),), minval=-1.0)
    draw = dict(zip(_DRAWS, draws, strict=True))
    margins = _margins(image, image_size)
    # The crop comes last: XLA on CPU would repeat the resampling for every later use.
    image = _flipped(image, 1, draw["flip_horizontal"], flip_horizontal)
    image = _flipped(image, 0, draw["flip_vertical"], flip_vertical)
    image = colors(draw, image)
    top, left = map(_integer, (draw["top"], draw["left"]), margins)
    if crop:
      top += jnp.round(crop * image_size * draw["shift_y"])
      left += jnp.round(crop * image_size * draw["shift_x"])
    if rotation or zoom:
      angle = jnp.deg2rad(rotation * draw["rotation"])
      scale = 1 + zoom * (draw["zoom"] + 1) / 2
      matrix = _crop_matrix(top, left, angle, scale, image_size)
      return jnp.clip(warp(image, matrix, image_size), 0, 1)
    return _slice(image, top, left, image_size, pad=round(crop * image_size))

  return augment


def _flipped(
  image: jax.Array, axis: int, draw: jax.Array, probability: float
) -> jax.Array:
  if not probability:
    return image
  return jnp.where(draw < 2 * probability - 1, jnp.flip(image, axis), image)


def _make_colors(
  brightness: float, contrast: float, saturation: float, hue: float
) -> Callable[[dict[str, jax.Array], jax.Array], jax.Array]:
  """Returns (draws, image) to the image with its colours changed."""
  _check_range(0.5, hue=hue)
  _check_range(1, brightness=brightness, contrast=contrast, saturation=saturation)

  if not (brightness or contrast or saturation or hue):
    return lambda draw, image: image
  import dm_pix as pix

  def colors(draw: dict[str, jax.Array], image: jax.Array) -> jax.Array:
    if brightness:
      image = pix.adjust_brightness(image, brightness * draw["brightness"])
    if contrast:
      image = pix.adjust_contrast(image, 1 + contrast * draw["contrast"])
    image = jnp.clip(image, 0, 1)  # the range that HSV is defined for
    if saturation:
      image = pix.adjust_saturation(image, 1 + saturation * draw["saturation"])
    if hue:
      image = pix.adjust_hue(image, hue * draw["hue"])
    return jnp.clip(image, 0, 1)

  return colors


def for_examples(
  augment: Augment, key: jax.Array, index: jax.Array, images: jax.Array
) -> jax.Array:
  """Augments image i with the key `fold_in(key, index[i])`.

  Args:
    augment: see `make_augment`.
    key: PRNG key.
    index: `[B]` int, positions in the global batch.
    images: `[B, H, W, 3]` float32 in [0, 1].

  Returns:
    `[B, image_size, image_size, 3]` float32 in [0, 1].
  """
  return jax.vmap(lambda i, image: augment(jax.random.fold_in(key, i), image))(
    index, images
  )


def center_crop(images: jax.Array, image_size: int) -> jax.Array:
  """Crops `[..., H, W, C]` to the central `[..., image_size, image_size, C]`.

  Raises:
    ValueError: the images are smaller than `image_size`.
  """
  top, left = (margin // 2 for margin in _margins(images, image_size))
  return images[..., top : top + image_size, left : left + image_size, :]


def warp(image: jax.Array, matrix: jax.Array, size: int) -> jax.Array:
  """Resamples an image through an affine map, bilinearly.

  Output pixel (y, x) is the input at `matrix @ (y, x, 1)`, in pixels. Outside the
  image, pixels are reflected about the centres of the outermost ones.

  Args:
    image: `[H, W, C]` float, H and W at least 2.
    matrix: `[2, 3]`.
    size: side of the output in pixels.

  Returns:
    `[size, size, C]`.
  """
  height, width, channels = image.shape
  y = jax.lax.broadcasted_iota(image.dtype, (size, size), 0)
  x = jax.lax.broadcasted_iota(image.dtype, (size, size), 1)
  source_y, source_x = (
    row[0] * y + row[1] * x + row[2] for row in (matrix[0], matrix[1])
  )
  top, down = _cell(source_y, height)
  left, right = _cell(source_x, width)
  flat = image.reshape(height * width, channels)
  first = top * width + left

  def neighbours(offset):
    return flat.at[first + offset].get(
      mode="promise_in_bounds", wrap_negative_indices=False
    )

  down, right = down[..., None], right[..., None]
  above = (1 - right) * neighbours(0) + right * neighbours(1)
  below = (1 - right) * neighbours(width) + right * neighbours(width + 1)
  return (1 - down) * above + down * below


def _cell(coordinate: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
  """Returns the pixel before a reflected coordinate, and the distance from it."""
  period = 2 * (length - 1)
  coordinate = jnp.abs(coordinate)
  coordinate = coordinate - period * jnp.floor(coordinate / period)
  coordinate = jnp.minimum(coordinate, period - coordinate)
  # At most the last pixel but one: the next pixel must exist.
  before = jnp.clip(jnp.floor(coordinate), 0, length - 2)
  return before.astype(jnp.int32), coordinate - before


def _crop_matrix(
  top: jax.Array, left: jax.Array, angle: jax.Array, scale: jax.Array, size: int
) -> jax.Array:
  """Returns the `[2, 3]` map from a scaled and rotated crop to the image."""
  cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
  middle = (size - 1) / 2
  return jnp.array(
    [
      [cos, sin, top + middle * (1 - cos - sin)],
      [-sin, cos, left + middle * (1 + sin - cos)],
    ]
  )


def _slice(
  image: jax.Array, top: jax.Array, left: jax.Array, size: int, *, pad: int
) -> jax.Array:
  if pad:
    image = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
  elif image.shape[:2] == (size, size):
    return image
  starts = [start.astype(jnp.int32) + pad for start in (top, left)]
  return jax.lax.dynamic_slice(image, (*starts, 0), (size, size, image.shape[2]))


def _integer(draw: jax.Array, high: int) -> jax.Array:
  """Maps [-1, 1) to the integers from 0 to `high` inclusive, as floats."""
  return jnp.minimum(jnp.floor((draw + 1) / 2 * (high + 1)), high)


def _margins(images: jax.Array, image_size: int) -> tuple[int, int]:
  height, width = images.shape[-3:-1]
  if min(height, width) < image_size:
    raise ValueError(
      f"Images of {height}x{width} pixels are too small for a crop of"
      f" {image_size}x{image_size}."
    )
  return height - image_size, width - image_size


def _check_range(high: float, **strengths: float) -> None:
  for name, value in strengths.items():
    if not 0 <= value <= high:
      raise ValueError(f"{name} must be within [0, {high}], not {value}.")
