"""Neural style transfer: a photograph in the manner of a painting.

The picture's pixels are optimised until its textures are the painting's, while it goes
on showing what the photograph shows.

References: Gatys, Ecker and Bethge, Image Style Transfer Using Convolutional Neural
  Networks, CVPR 2016; for the colours Gatys et al., Controlling Perceptual Factors in
  Neural Style Transfer, CVPR 2017, section 5.1.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import losses, pixels, xla
from ctx_encoder.apps.stylize import lbfgs

Stylize = Callable[[jax.typing.ArrayLike, jax.typing.ArrayLike], np.ndarray]

_FAR = 0.1  # for pixels to be from the photograph's, in [0, 1]
_TINY = 1e-6
_MARGIN = 1 / 255  # to black and white at the start: the sine has no slope there


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What pictures are to become.

  style_layers: whose Gram matrices are to be the painting's; () = all.
  content_layers: whose features are to stay the photograph's; () = its pixels.
  style_weight, content_weight, tv_weight: factors of the terms of `judge`.
  steps: evaluations of the gradient, at most one update of the pixels each.
  keep_colors: the painting is given the photograph's colours first, and not the
    photograph the painting's.
  """

  style_layers: tuple[str, ...] = ()
  content_layers: tuple[str, ...] = ()
  style_weight: float = 1.0
  content_weight: float = 0.1
  tv_weight: float = 0.0
  steps: int = 50
  keep_colors: bool = False


class Targets(NamedTuple):
  """What pictures are compared with.

  grams: of the paintings, `{layer: [B, C, C]}`, each divided by its h w.
  content: of the photographs, `{layer: [B, h, w, C]}`; {} where it is their pixels.
  photographs: `[B, H, W, 3]` in [0, 1].
  """

  grams: dict[str, jax.Array]
  content: dict[str, jax.Array]
  photographs: jax.Array


def make_stylize(features: losses.FeatureFunction, recipe: Recipe) -> Stylize:
  """Returns `stylize(photographs, paintings)`, jitted.

  It takes uint8 `[B, H, W, 3]` twice and returns as much: each photograph in the manner
  of the painting at its place. What becomes of one does not depend on the others. It is
  compiled anew for every shape, and raises ValueError where the loss is not finite or
  the shapes do not serve.

  Minimises style_weight * style + content_weight * content + tv_weight *
  total_variation, see `judge`, over angles a, with pixels (1 + sin a) / 2 in [0, 1], by
  L-BFGS from the photograph on. First the photograph is given the painting's colours,
  see `match_colors`: the Gram matrices alone would be slow to do that.

  Args:
    features: images in [0, 1] to `{layer: [B, h, w, C]}`, a pytree as those of
      `models.feature_function` returns.
    recipe: what the pictures are to become.
  """
  weights = {
    "style": recipe.style_weight,
    "content": recipe.content_weight,
    "total_variation": recipe.tv_weight,
  }
  jit = functools.partial(jax.jit, compiler_options=xla.options())

  def loss(features, targets, angles):
    images = _pixels(angles)
    terms = judge(features, images, targets, recipe)
    weighted = (weights[name] * terms[name] for name in weights if weights[name])
    return sum(weighted, start=jnp.zeros(len(images)))

  @jit
  def begin(features, photographs, paintings):
    photographs, paintings = map(pixels.from_uint8, (photographs, paintings))
    if recipe.keep_colors:
      paintings = match_colors(paintings, photographs)
    else:
      photographs = match_colors(photographs, paintings)
    targets = make_targets(features, photographs, paintings, recipe)
    angles = jnp.arcsin(2 * jnp.clip(photographs, _MARGIN, 1 - _MARGIN) - 1)
    return targets, lbfgs.start(angles)

  # In a loop of XLA's own, its CPU backend takes convolutions for three times as long.
  @functools.partial(jit, donate_argnums=2)
  def update(features, targets, state):
    return lbfgs.update(state, functools.partial(loss, features, targets))

  @jit
  def end(state):
    return pixels.to_uint8(_pixels(state.x)), jnp.isfinite(state.value).all()

  def stylize(photographs, paintings):
    _check(photographs, paintings)
    targets, state = begin(features, photographs, paintings)
    for _ in range(recipe.steps):
      state = update(features, targets, state)
    images, finite = end(state)
    if not finite:
      raise ValueError("The loss is NaN or infinite: give lower weights.")
    return np.asarray(images)

  return stylize


def make_targets(
  features: losses.FeatureFunction,
  photographs: jax.Array,
  paintings: jax.Array,
  recipe: Recipe,
) -> Targets:
  """Returns what pictures are compared with.

  Args:
    features, recipe: as for `make_stylize`.
    photographs, paintings: `[B, H, W, 3]` in [0, 1].

  Raises:
    ValueError: a layer of the recipe is none of the features'.
  """
  style = _pick(features(paintings), recipe.style_layers)
  content = {}
  if recipe.content_layers:
    content = dict(_pick(features(photographs), recipe.content_layers))
  grams = {layer: _mean_gram(x) for layer, x in style.items()}
  return Targets(grams, content, photographs)


def judge(
  features: losses.FeatureFunction, images: jax.Array, targets: Targets, recipe: Recipe
) -> dict[str, jax.Array]:
  """How far pictures are from what they are to become.

  style = mean over layers of sum (G - S)^2 / sum S^2, where G and S are the Gram
  matrices of picture and painting, divided by the number of positions.
  content = mean over layers of sum (F - P)^2 / sum P^2, where F and P are the features
  of picture and photograph; without layers mean (x - p)^2 / 0.1^2 over their pixels.
  total_variation = `losses.total_variation` of the whole picture, per image.
  Sums go over a picture's matrix or features; so, whatever network these are of, the
  first two are about 1 where nothing agrees.

  Args:
    features, recipe: as for `make_stylize`.
    images: `[B, H, W, 3]` in [0, 1].
    targets: see `make_targets`.

  Returns:
    `{"style", "content", "total_variation"}`, `[B]` float32 each.

  References:
    Gatys et al., CVPR 2016, eq. 1 to 7, which have other factors.
  """
  found = features(images)
  style = [_relative(_mean_gram(found[k]), gram) for k, gram in targets.grams.items()]
  content = [_relative(found[k], target) for k, target in targets.content.items()]
  if not content:
    squares = jnp.square(images - targets.photographs)
    content = [jnp.mean(squares, axis=(1, 2, 3)) / _FAR**2]
  # A barrier, or XLA takes a second to find out that this mask is all ones.
  everywhere = jax.lax.optimization_barrier(jnp.ones((*images.shape[:3], 1)))
  smoothness = losses.total_variation(images, everywhere, per="image")
  return {
    "style": sum(style, start=jnp.zeros(())) / len(style),
    "content": sum(content, start=jnp.zeros(())) / len(content),
    "total_variation": smoothness,
  }


def match_colors(images: jax.Array, others: jax.Array) -> jax.Array:
  """Gives images the mean colour of others, and their covariance of colours.

  x -> A (x - mean) + other mean, with A = C^-1/2 (C^1/2 D C^1/2)^1/2 C^-1/2 for the
  covariances C and D: of all maps that do so, the one that moves colours least. Cut off
  at 0 and 1.

  Args:
    images: `[B, H, W, 3]` in [0, 1].
    others: `[B, h, w, 3]` in [0, 1].

  Returns:
    `[B, H, W, 3]` float32 in [0, 1].

  References:
    Pitie and Kokaram, The linear Monge-Kantorovitch linear colour mapping for
    example-based colour transfer, CVMP 2007, eq. 5.
  """
  (centred, _, own), (_, mean, other) = _colors(images), _colors(others)
  root, inverse = _power(own, 0.5), _power(own, -0.5)
  product = functools.partial(jnp.matmul, precision="highest")
  inner = _power(product(product(root, other), root), 0.5)
  matrix = product(product(inverse, inner), inverse)
  moved = jnp.einsum("bhwi,bij->bhwj", centred, matrix, precision="highest")
  return jnp.clip(moved + mean, 0, 1)


def _colors(images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns images less their mean colour, that, and the covariance of colours."""
  mean = jnp.mean(images, axis=(1, 2), keepdims=True)
  centred = images - mean
  noise = jnp.eye(3)[None] * 1e-4  # of a hundredth: what has no colours has a root too
  return centred, mean, _mean_gram(centred) + noise


def _power(matrices: jax.Array, exponent: float) -> jax.Array:
  """Returns a power of symmetric positive matrices, `[B, 3, 3]`."""
  values, vectors = jnp.linalg.eigh(matrices)
  values = jnp.maximum(values, 1e-10) ** exponent  # rounding may make one negative
  return jnp.einsum("bij,bj,bkj->bik", vectors, values, vectors, precision="highest")


def _pixels(angles: jax.Array) -> jax.Array:
  return (1 + jnp.sin(angles)) / 2


def _check(photographs, paintings) -> None:
  shape = np.shape(photographs)
  if len(shape) != 4 or shape[3] != 3 or np.shape(paintings) != shape:
    raise ValueError(
      f"photographs and paintings must have one shape [B, H, W, 3], not {shape} and"
      f" {np.shape(paintings)}."
    )


def _pick(
  found: Mapping[str, jax.Array], layers: tuple[str, ...]
) -> Mapping[str, jax.Array]:
  missing = [layer for layer in layers if layer not in found]
  if missing:
    raise ValueError(f"There is no layer {missing[0]!r}; there are {', '.join(found)}.")
  return {layer: found[layer] for layer in layers} if layers else found


def _mean_gram(features: jax.Array) -> jax.Array:
  return losses.gram_matrix(features) / (features.shape[1] * features.shape[2])


def _relative(found: jax.Array, target: jax.Array) -> jax.Array:
  found, target = found.astype(jnp.float32), target.astype(jnp.float32)
  axes = tuple(range(1, target.ndim))
  size = jnp.sum(jnp.square(target), axes)
  return jnp.sum(jnp.square(found - target), axes) / (size + _TINY)
