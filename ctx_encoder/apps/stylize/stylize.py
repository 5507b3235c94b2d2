"""Neural style transfer: gives a photograph the colours and textures of a painting.

Optimises the pixels of a photograph so that their Gram matrices match the painting's
and their content features stay the photograph's.

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

Features = Callable[[jax.Array], Mapping[str, jax.Array]]
Stylize = Callable[[jax.typing.ArrayLike, jax.typing.ArrayLike], np.ndarray]

_PIXEL_SCALE = 0.1  # unit of pixel differences in the content term, in [0, 1]
_TINY = 1e-6
_MARGIN = 1 / 255  # start inside [0, 1]: at its ends the sine has no gradient


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Settings of the style transfer.

  Attributes:
    style_layers: layers whose Gram matrices are compared; () = all.
    content_layers: layers whose features are compared; () = the pixels.
    style_weight, content_weight, tv_weight: weights of the terms of `loss_terms`.
    steps: gradient evaluations, with at most one update of the pixels each.
    keep_colors: match the painting's colours to the photograph's before the
      optimisation, instead of the photograph's to the painting's.
  """

  style_layers: tuple[str, ...] = ()
  content_layers: tuple[str, ...] = ()
  style_weight: float = 1.0
  content_weight: float = 0.1
  tv_weight: float = 0.0
  steps: int = 50
  keep_colors: bool = False


class Targets(NamedTuple):
  """Targets of the style and content terms.

  Attributes:
    grams: Gram matrices of the paintings, divided by h w, `{layer: [B, C, C]}`.
    content: features of the photographs, `{layer: [B, h, w, C]}`; {} = use the pixels.
    photographs: `[B, H, W, 3]` in [0, 1].
  """

  grams: dict[str, jax.Array]
  content: dict[str, jax.Array]
  photographs: jax.Array


def make_stylize(features: Features, recipe: Recipe) -> Stylize:
  """Returns `stylize(photographs, paintings)`, jitted once per shape.

  It takes uint8 photographs and paintings `[B, H, W, 3]` and returns the stylized
  photographs, uint8 `[B, H, W, 3]`; examples are independent of each other. It raises
  ValueError if the loss is not finite or the shapes differ.

  Minimises style_weight * style + content_weight * content + tv_weight *
  total_variation, the terms of `loss_terms`, by L-BFGS. The variables are angles a with
  pixels (1 + sin a) / 2 in [0, 1]; the start is the photograph with the painting's
  colours, see `match_colors`, which the Gram matrices would change only slowly.

  Args:
    features: images in [0, 1] to `{layer: [B, h, w, C]}`, a pytree such as
      `models.feature_function` and `random_filters.pyramid` return.
    recipe: settings.
  """
  jit = functools.partial(jax.jit, compiler_options=xla.options())

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

  # Not a loop inside XLA: in one, convolutions on the CPU take three times as long.
  @functools.partial(jit, donate_argnums=2)
  def update(features, targets, state):
    return lbfgs.update(state, functools.partial(_loss, features, targets, recipe))

  @jit
  def end(state):
    return pixels.to_uint8(_pixels(state.x)), jnp.isfinite(state.value).all()

  def stylize(photographs, paintings):
    _check_shapes(photographs, paintings)
    targets, state = begin(features, photographs, paintings)
    for _ in range(recipe.steps):
      state = update(features, targets, state)
    images, finite = end(state)
    if not finite:
      raise ValueError("The loss is NaN or infinite: use lower weights.")
    return np.asarray(images)

  return stylize


def _loss(
  features: Features, targets: Targets, recipe: Recipe, angles: jax.Array
) -> jax.Array:
  """Returns the weighted sum of the terms, `[B]`; terms of weight 0 are left out."""
  images = _pixels(angles)
  terms = loss_terms(features, images, targets, recipe)
  weights = {
    "style": recipe.style_weight,
    "content": recipe.content_weight,
    "total_variation": recipe.tv_weight,
  }
  weighted = (weights[name] * terms[name] for name in weights if weights[name])
  return sum(weighted, start=jnp.zeros(len(images)))


def make_targets(
  features: Features,
  photographs: jax.Array,
  paintings: jax.Array,
  recipe: Recipe,
) -> Targets:
  """Computes the targets of `loss_terms`.

  Args:
    features, recipe: as for `make_stylize`.
    photographs, paintings: `[B, H, W, 3]` in [0, 1].

  Raises:
    ValueError: `features` does not return a layer of the recipe.
  """
  style = _pick(features(paintings), recipe.style_layers)
  content = {}
  if recipe.content_layers:
    content = dict(_pick(features(photographs), recipe.content_layers))
  grams = {layer: _mean_gram(x) for layer, x in style.items()}
  return Targets(grams, content, photographs)


def loss_terms(
  features: Features, images: jax.Array, targets: Targets, recipe: Recipe
) -> dict[str, jax.Array]:
  """Style, content and smoothness terms of the loss.

  style = mean over layers of sum (G - S)^2 / sum S^2, where G and S are the Gram
  matrices of image and painting, divided by the number of positions.
  content = mean over layers of sum (F - P)^2 / sum P^2, where F and P are the features
  of image and photograph; without content layers, mean (x - p)^2 / 0.1^2 over pixels.
  total_variation = `losses.total_variation` of the complete image, per image.
  The first two are relative errors: about 1 for unrelated images in any network.

  Args:
    features, recipe: as for `make_stylize`.
    images: `[B, H, W, 3]` in [0, 1].
    targets: from `make_targets`.

  Returns:
    `{"style", "content", "total_variation"}`, `[B]` float32 each.

  References:
    Gatys et al., CVPR 2016, eq. 1 to 7, with other constant factors.
  """
  found = features(images)
  style = [_relative(_mean_gram(found[k]), gram) for k, gram in targets.grams.items()]
  content = [_relative(found[k], target) for k, target in targets.content.items()]
  if not content:
    squares = jnp.square(images - targets.photographs)
    content = [jnp.mean(squares, axis=(1, 2, 3)) / _PIXEL_SCALE**2]
  # The barrier keeps XLA from folding this constant mask, which takes it a second.
  everywhere = jax.lax.optimization_barrier(jnp.ones((*images.shape[:3], 1)))
  smoothness = losses.total_variation(images, everywhere, per="image")
  return {
    "style": sum(style, start=jnp.zeros(())) / len(style),
    "content": sum(content, start=jnp.zeros(())) / len(content),
    "total_variation": smoothness,
  }


def match_colors(images: jax.Array, others: jax.Array) -> jax.Array:
  """Matches the mean and covariance of an image's colours to another image's.

  x -> A (x - mean) + mean of the other, with A = C^-1/2 (C^1/2 D C^1/2)^1/2 C^-1/2 for
  the covariances C and D. Of all linear maps with this property it moves colours least.
  The result is clipped to [0, 1].

  Args:
    images: `[B, H, W, 3]` in [0, 1].
    others: `[B, h, w, 3]` in [0, 1], the colours to match.

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
  """Returns images minus their mean colour, the mean, and the covariance."""
  mean = jnp.mean(images, axis=(1, 2), keepdims=True)
  centred = images - mean
  noise = jnp.eye(3)[None] * 1e-4  # keeps the covariance of grey images invertible
  return centred, mean, _mean_gram(centred) + noise


def _power(matrices: jax.Array, exponent: float) -> jax.Array:
  """Returns a power of symmetric positive definite matrices, `[B, 3, 3]`."""
  values, vectors = jnp.linalg.eigh(matrices)
  values = jnp.maximum(values, 1e-10) ** exponent  # rounding can give negative ones
  return jnp.einsum("bij,bj,bkj->bik", vectors, values, vectors, precision="highest")


def _pixels(angles: jax.Array) -> jax.Array:
  return (1 + jnp.sin(angles)) / 2


def _check_shapes(photographs, paintings) -> None:
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
