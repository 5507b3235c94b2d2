"""From a kind of hole and its parameters to a function of a key, and to a batch."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder.masks.blocks import center, random_block
from ctx_encoder.masks.regions import region_noise, region_shapes
from ctx_encoder.masks.strokes import brush

Sampler = Callable[[jax.Array], jax.Array]


def combined(
  key: jax.Array, samplers: Sequence[Sampler], weights: Sequence[float]
) -> jax.Array:
  """Returns a mask of one of `samplers`, drawn with probability in ratio of `weights`.

  Args:
    key: PRNG key.
    samplers: functions of a key.
    weights: one for each sampler, 0 or more, not all 0; those with 0 are never traced.
  Returns:
    What the drawn sampler returns.
  """
  drawn = [(s, w) for s, w in zip(samplers, weights, strict=True) if w > 0]
  upper = np.cumsum([w for _, w in drawn])
  kind_key, mask_key = jax.random.split(key)
  uniform = jax.random.uniform(kind_key)
  kind = jnp.sum(uniform >= (upper[:-1] / upper[-1]).astype(np.float32))
  return jax.lax.switch(kind, [s for s, _ in drawn], mask_key)


def make_sampler(
  kind: str,
  size: int,
  *,
  center_fraction: float = 0.5,
  block_count: int = 4,
  block_min_side: float = 0.15,
  block_max_side: float = 0.4,
  block_max_area: float = 0.25,
  region: str = "noise",
  shapes: Any = None,
  brush_strokes: int = 4,
  brush_width: float = 0.1,
  probabilities: Mapping[str, float] | None = None,
) -> Sampler:
  """Returns `sample(key) -> [size, size, 1]` for a kind of mask.

  Args:
    kind: center, random_block, random_region, brush or combined.
    size: side of the mask in pixels.
    center_fraction: see `center`.
    block_count: with the next three, see `random_block`.
    block_min_side: of the mask's side.
    block_max_side: of the mask's side.
    block_max_area: of the mask's area.
    region: what random_region is: noise or shapes.
    shapes: `[N, s, s, 1]` silhouettes, above 0 = hole, where region is shapes.
    brush_strokes: see `brush`.
    brush_width: see `brush`.
    probabilities: weight of each kind in combined; kinds left out have 0. None gives
      center, random_block and random_region the same.
  Raises:
    ValueError: there is no such kind, or shapes or probabilities do not serve.
  """
  samplers: dict[str, Sampler] = {
    "center": lambda key: center(size, fraction=center_fraction),
    "random_block": functools.partial(
      random_block,
      size=size,
      count=block_count,
      min_side=block_min_side,
      max_side=block_max_side,
      max_area=block_max_area,
    ),
    "random_region": functools.partial(region_noise, size=size),
    "brush": functools.partial(
      brush, size=size, strokes=brush_strokes, width=brush_width
    ),
  }
  if kind not in (*samplers, "combined"):
    raise ValueError(
      f"There is no mask kind {kind!r}; kinds: {', '.join(samplers)}, combined."
    )
  if probabilities is None:
    probabilities = {"center": 1.0, "random_block": 1.0, "random_region": 1.0}
  weights = {name: float(probabilities.get(name, 0)) for name in samplers}
  if kind == "combined":
    unknown = sorted(set(probabilities) - set(samplers))
    if unknown:
      raise ValueError(f"Probabilities name kinds that do not exist: {unknown}.")
    if min(weights.values()) < 0 or not sum(weights.values()) > 0:
      raise ValueError(
        f"Probabilities of mask kinds must be 0 or more and not all 0, not {weights}."
      )
  if region not in ("noise", "shapes"):
    raise ValueError(f"random_region is made of noise or shapes, not {region!r}.")
  uses_region = kind == "random_region" or (
    kind == "combined" and weights["random_region"] > 0
  )
  if region == "shapes" and uses_region:
    samplers["random_region"] = functools.partial(
      region_shapes, size=size, shapes=_checked_shapes(shapes)
    )
  if kind == "combined":
    return functools.partial(
      combined, samplers=tuple(samplers.values()), weights=tuple(weights.values())
    )
  return samplers[kind]


def for_examples(sample: Sampler, key: jax.Array, index: jax.Array) -> jax.Array:
  """Returns one mask per example, `[B, S, S, 1]`.

  Example i gets `sample(fold_in(key, index[i]))`: the same index gives the same mask
  whatever else is in the batch.

  Args:
    sample: function of a key, as from `make_sampler`.
    key: PRNG key.
    index: `[B]` int, the position in the global batch or a stable id of the example.
  """
  return jax.vmap(lambda i: sample(jax.random.fold_in(key, i)))(index)


def _checked_shapes(shapes: Any) -> jax.Array:
  if shapes is None:
    raise ValueError("random_region of shapes needs silhouettes; give it `shapes`.")
  shapes = np.asarray(shapes)
  if shapes.ndim != 4 or shapes.shape[1] != shapes.shape[2] or shapes.shape[3] != 1:
    raise ValueError(f"Silhouettes are [N, s, s, 1], not {list(shapes.shape)}.")
  if not len(shapes) or not (shapes > 0).any(axis=(1, 2, 3)).all():
    raise ValueError("There are no silhouettes, or one of them has no hole.")
  return jnp.asarray(shapes > 0)
