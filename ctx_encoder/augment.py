"""Augmentation on the device: a pure function of a PRNG key and an image.

  augment = make_augment(image_size=128, rotation=10, zoom=0.2, flip_horizontal=0.5)
  images = for_examples(augment, key, index, images)

What is off leaves no code in the traced step. Rotation and zoom are one resampling;
without them crops and flips move pixels and do not change them.
"""

from collections.abc import Callable

import dm_pix as pix
import jax
import jax.numpy as jnp

Augment = Callable[[jax.Array, jax.Array], jax.Array]

# One uniform draw in [-1, 1) each, whatever is on: turning one thing on or off does not
# change what the same key means for the others.
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

  Images are float32 in [0, 1], H and W at least `image_size`; from larger ones a square
  is cut out at a random place. The border is continued by reflection.

  Args:
    image_size: side of the result in pixels.
    rotation: largest rotation either way, degrees.
    zoom: the image is enlarged by a factor from [1, 1 + zoom].
    crop: largest shift either way, vertical and horizontal, of the result's side.
    flip_horizontal: probability of a left-right flip.
    flip_vertical: probability of an upside-down flip.
    brightness: largest value that is added or taken away, on [0, 1].
    contrast: distances from each channel's mean are multiplied by a factor from
      [1 - contrast, 1 + contrast].
    saturation: HSV saturation is multiplied by a factor from
      [1 - saturation, 1 + saturation].
    hue: largest turn of the hue either way, of the circle.
  Raises:
    ValueError: a strength is out of range; when traced, an image is too small.
  """
  _check_range(180, rotation=rotation)
  _check_range(4, zoom=zoom)
  _check_range(0.5, crop=crop, hue=hue)
  _check_range(1, flip_horizontal=flip_horizontal, flip_vertical=flip_vertical)
  _check_range(1, brightness=brightness, contrast=contrast, saturation=saturation)

  def augment(key: jax.Array, image: jax.Array) -> jax.Array:
    draws = jax.random.uniform(key, (len(_DRAWS),), minval=-1.0)
    draw = dict(zip(_DRAWS, draws, strict=True))
    margins = _margins(image, image_size)
    # The crop comes last: XLA on CPU would resample anew for every later use.
    if flip_horizontal:
      flips = draw["flip_horizontal"] < 2 * flip_horizontal - 1
      image = jnp.where(flips, image[:, ::-1], image)
    if flip_vertical:
      flips = draw["flip_vertical"] < 2 * flip_vertical - 1
      image = jnp.where(flips, image[::-1], image)
    if brightness or contrast or saturation or hue:
      image = colors(draw, image)
    top = _integer(draw["top"], margins[0])
    left = _integer(draw["left"], margins[1])
    if crop:
      top += jnp.round(crop * image_size * draw["shift_y"])
      left += jnp.round(crop * image_size * draw["shift_x"])
    if rotation or zoom:
      angle = jnp.deg2rad(rotation * draw["rotation"])
      scale = 1 + zoom * (draw["zoom"] + 1) / 2
      matrix = _crop_matrix(top, left, angle, scale, image_size)
      return jnp.clip(warp(image, matrix, image_size), 0, 1)
    return _slice(image, top, left, image_size, pad=round(crop * image_size))

  def colors(draw: dict[str, jax.Array], image: jax.Array) -> jax.Array:
    changed = image
    if brightness:
      changed = pix.adjust_brightness(changed, brightness * draw["brightness"])
    if contrast:
      changed = pix.adjust_contrast(changed, 1 + contrast * draw["contrast"])
    changed = jnp.clip(changed, 0, 1)  # where HSV is defined
    if saturation:
      changed = pix.adjust_saturation(changed, 1 + saturation * draw["saturation"])
    if hue:
      changed = pix.adjust_hue(changed, hue * draw["hue"])
    return jnp.clip(changed, 0, 1)

  return augment


def for_examples(
  augment: Augment, key: jax.Array, index: jax.Array, images: jax.Array
) -> jax.Array:
  """Returns every image augmented with the key `fold_in(key, index[i])`.

  Args:
    augment: as from `make_augment`.
    key: PRNG key.
    index: `[B]` int, the position in the global batch.
    images: `[B, H, W, 3]` float32 in [0, 1].
  Returns:
    `[B, image_size, image_size, 3]` float32 in [0, 1].
  """
  return jax.vmap(lambda i, image: augment(jax.random.fold_in(key, i), image))(
    index, images
  )


def center_crop(images: jax.Array, image_size: int) -> jax.Array:
  """Returns the middle square of `[..., H, W, C]`, `[..., image_size, image_size, C]`.

  Raises:
    ValueError: the images are smaller than that.
  """
  top, left = (margin // 2 for margin in _margins(images, image_size))
  return images[..., top : top + image_size, left : left + image_size, :]


def warp(image: jax.Array, matrix: jax.Array, size: int) -> jax.Array:
  """Resamples an image through an affine map, bilinearly, reflecting at the border.

  Output pixel (y, x) is the input at `matrix @ (y, x, 1)`, in pixels; the image is
  continued by reflection about the centres of its outermost pixels.

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
  """Returns the pixel before a reflected coordinate, and how far beyond it lies."""
  period = 2 * (length - 1)
  coordinate = jnp.abs(coordinate)
  coordinate = coordinate - period * jnp.floor(coordinate / period)
  coordinate = jnp.minimum(coordinate, period - coordinate)
  # At most the last but one, so that the pixel after it exists.
  before = jnp.clip(jnp.floor(coordinate), 0, length - 2)
  return before.astype(jnp.int32), coordinate - before


def _crop_matrix(
  top: jax.Array, left: jax.Array, angle: jax.Array, scale: jax.Array, size: int
) -> jax.Array:
  """Returns the `[2, 3]` map from an enlarged, turned crop back to the image."""
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
  """Maps [-1, 1) to the integers 0 to high, high among them, as a float."""
  return jnp.minimum(jnp.floor((draw + 1) / 2 * (high + 1)), high)


def _margins(images: jax.Array, image_size: int) -> tuple[int, int]:
  height, width = images.shape[-3:-1]
  if min(height, width) < image_size:
    raise ValueError(
      f"Images of {height}x{width} are too small to cut {image_size}x{image_size} from."
    )
  return height - image_size, width - image_size


def _check_range(high: float, **strengths: float) -> None:
  for name, value in strengths.items():
    if not 0 <= value <= high:
      raise ValueError(f"{name} must be within [0, {high}], not {value}.")
