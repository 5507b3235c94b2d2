"""Features of images from the layers of a generator's encoder, and from its pixels.

Context Encoders were proposed to learn such features without labels: Pathak et al.,
CVPR 2016, section 5.2.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import augment, data, pixels, xla
from ctx_encoder.evaluation import compare
from ctx_encoder.models import Generator
from ctx_encoder.training.task import View

Extract = Callable[[Any, jax.typing.ArrayLike], jax.Array]

BOTTLENECK = "bottleneck"
POOLS = ("grid", "none", "mean", "max")

# Layers are compared at about the same number of features, as in Zhang et al., Colorful
# Image Colorization, ECCV 2016; the dense bottleneck of 'Photos' has 9216.
MOST_FEATURES = 9216


def shapes(generator: Generator, view: View) -> dict[str, tuple[int, int, int]]:
  """Returns {layer: (height, width, channels)} of all layers, in order."""
  _, maps = jax.eval_shape(functools.partial(_init, generator, view), jax.random.key(0))
  layers = (*generator.encoder.layers, BOTTLENECK)
  return {name: maps[name].shape[1:] for name in layers}


def check_layer(generator: Generator, view: View, layer: str) -> None:
  """Raises ValueError, which lists all layers, if there is no such layer."""
  known = shapes(generator, view)
  if layer not in known:
    named = ", ".join(f"{n} ({h}x{w}x{c})" for n, (h, w, c) in known.items())
    raise ValueError(f"There is no layer {layer!r}; there are {named}.")


def make_extract(
  generator: Generator, view: View, layer: str = BOTTLENECK, pool: str = "grid"
) -> Extract:
  """Returns `extract(variables, images)`, jitted: a row of features for each image.

  It takes `state.inference_variables` and uint8 images `[B, S, S, 3]`, crops the centre
  of images larger than the network's, and returns `[B, D]` float32. Nothing is masked:
  the mask channel, if there is one, is 0. Noise of the bottleneck is the same for all
  images. Every batch size is compiled separately.

  Args:
    generator: the network.
    view: normalisation and mask channel that it was trained with.
    layer: a stage of its encoder, or "bottleneck"; see `shapes`.
    pool: of a map `[h, w, C]`: "none" keeps it, "mean" and "max" pool over all
      positions, "grid" takes means over a square grid with the most cells that leave
      at most `MOST_FEATURES` features.

  Raises:
    ValueError: there is no such layer or pooling.
  """
  check_layer(generator, view, layer)
  if pool not in POOLS:
    raise ValueError(f"Pooling is {', '.join(POOLS)}, not {pool!r}.")

  def extract(variables, images):
    inputs = _inputs(view, images)
    keys = jnp.broadcast_to(jax.random.key(0), len(inputs))
    maps: Any = generator.apply(variables, inputs, keys=keys, method="layers")
    return _pool(maps[layer].astype(jnp.float32), pool).reshape(len(inputs), -1)

  return jax.jit(extract, compiler_options=xla.options())


def make_random_variables(
  generator: Generator, view: View
) -> Callable[[int, Iterable[np.ndarray]], Any]:
  """Returns `random(seed, batches)`: variables for `extract` of an untrained network.

  Parameters are the initial ones. BatchNorm's running statistics are updated with the
  batches, uint8 `[B, S, S, 3]`: a trained network's statistics fit its images too, and
  with the initial ones the features of the untrained network would be too weak.
  """

  @jax.jit
  def init(key):
    return _init(generator, view, key)[0]

  @jax.jit
  def update(variables, images, key):
    inputs = _inputs(view, images)
    keys = jax.random.split(key, len(inputs))
    _, updates = generator.apply(
      variables, inputs, train=True, keys=keys, method="layers", mutable=["batch_stats"]
    )
    return {**variables, **updates}

  def random(seed: int, batches: Iterable[np.ndarray]) -> Any:
    key = jax.random.key(seed)
    variables, updates = init(key), 0
    for updates, images in enumerate(batches, start=1):
      variables = update(variables, images, jax.random.fold_in(key, updates))
    stats = generator.unbiased_statistics(
      variables.get("batch_stats", {}), jnp.asarray(updates)
    )
    return {"params": variables["params"], "batch_stats": stats}

  return random


def make_pixels(view: View, side: int) -> Callable[[jax.typing.ArrayLike], jax.Array]:
  """Returns a function of images, as `extract`'s, to their mean colours.

  uint8 `[B, S, S, 3]` to `[B, side * side * 3]` in [0, 1], over a grid of that side.
  """

  @jax.jit
  def mean_colors(images):
    cropped = augment.center_crop(jnp.asarray(images), view.image_size)
    return _grid(pixels.from_uint8(cropped), side).reshape(len(cropped), -1)

  return mean_colors


def of_examples(
  function: Callable[[np.ndarray], jax.Array],
  examples: data.Examples,
  *,
  batch_size: int = 32,
  progress: Callable[[int], Any] | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Returns features of all images that can be decoded, and their names.

  Args:
    function: uint8 `[B, S, S, 3]` to `[B, D]`.
    examples: the images; those that cannot be decoded are added to `examples.skipped`.
    batch_size: images a call.
    progress: is called with the number of images of each batch.

  Returns:
    float32 `[N, D]`, and `N` names.

  Raises:
    ValueError: no image can be decoded.
  """
  batch_size = min(batch_size, len(examples))
  found = compare.over_batches(
    lambda batch: {"features": function(batch["image"])},
    data.validation_batches(examples, batch_size=batch_size),
    len(examples),
    progress,
  )
  bad = examples.skipped
  return found["features"], tuple(name for name in examples.names if name not in bad)


def _init(generator: Generator, view: View, key: jax.Array):
  """Returns variables before the first step, and the layers' maps of one image."""
  inputs = jnp.zeros((1, view.image_size, view.image_size, view.channels))
  variables = generator.init(key, inputs, keys=key[None])
  return variables, generator.apply(variables, inputs, keys=key[None], method="layers")


def _inputs(view: View, images: jax.typing.ArrayLike) -> jax.Array:
  """Returns the generator's inputs for uint8 images without holes."""
  cropped = augment.center_crop(jnp.asarray(images), view.image_size)
  whole = pixels.from_uint8(cropped)
  return view.examples(whole, jnp.zeros((*whole.shape[:3], 1))).inputs


def _pool(maps: jax.Array, pool: str) -> jax.Array:
  """Pools `[B, h, w, C]`."""
  if pool == "mean":
    return jnp.mean(maps, (1, 2))
  if pool == "max":
    return jnp.max(maps, (1, 2))
  if pool == "grid":
    _, height, width, channels = maps.shape
    side = max(1, int((MOST_FEATURES / channels) ** 0.5))
    return _grid(maps, side) if side < max(height, width) else maps
  return maps


def _grid(maps: jax.Array, side: int) -> jax.Array:
  """Returns means over a grid, `[B, h, w, C]` to `[B, side, side, C]`.

  Cell i of n covers the places from floor(i h / n) to ceil((i + 1) h / n).
  """
  rows, columns = (_cells(length, side) for length in maps.shape[1:3])
  return jnp.einsum("gi,kj,bijc->bgkc", rows, columns, maps, precision="highest")


def _cells(length: int, count: int) -> np.ndarray:
  """Returns the weights of means over `count` stretches, `[count, length]`."""
  cells = np.zeros((count, length), np.float32)
  for i in range(count):
    start, stop = i * length // count, -(-(i + 1) * length // count)
    cells[i, start:stop] = 1 / (stop - start)
  return cells
