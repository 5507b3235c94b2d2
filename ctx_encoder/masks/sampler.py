"""Samplers, functions from a PRNG key to a mask: by name, combined, and for batches."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder.config import MASK_KINDS, Masks
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
    weights: one for each sampler, at least 0, not all 0; samplers of weight 0 are not
      traced.

  Returns:
    The drawn sampler's mask.
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
  center_fraction: float = Masks.center_fraction,
  block_count: int = Masks.block_count,
  block_min_side: float = Masks.block_min_side,
  block_max_side: float = Masks.block_max_side,
  block_max_area: float = Masks.block_max_area,
  region: str = Masks.region,
  shapes: Any = None,
  brush_strokes: int = Masks.brush_strokes,
  brush_width: float = Masks.brush_width,
  probabilities: Mapping[str, float] | None = None,
) -> Sampler:
  """Returns `sample(key) -> [size, size, 1]` for a kind of mask.

  Args:
    kind: one of `config.MASK_KINDS`, or "combined".
    size: side of the mask in pixels.
    center_fraction: see `center`.
    block_count, block_min_side, block_max_side, block_max_area: see `random_block`.
    region: "noise" or "shapes", for "random_region".
    shapes: `[N, s, s, 1]` silhouettes, above 0 = hole, for region "shapes".
    brush_strokes, brush_width: see `brush`.
    probabilities: weight of each kind in "combined", 0 for kinds left out; None = the
      defaults of `config.Masks`.

  Raises:
    ValueError: the kind is unknown, or shapes or probabilities are invalid.
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
  weights = _weights(kind, probabilities)
  if region not in ("noise", "shapes"):
    raise ValueError(f"region must be noise or shapes, not {region!r}.")
  if region == "shapes" and weights["random_region"]:
    samplers["random_region"] = functools.partial(
      region_shapes, size=size, shapes=_checked_shapes(shapes)
    )
  if kind != "combined":
    return samplers[kind]
  return functools.partial(
    combined,
    samplers=tuple(samplers[name] for name in weights),
    weights=tuple(weights.values()),
  )


def _weights(kind: str, probabilities: Mapping[str, float] | None) -> dict[str, float]:
  """Returns the weight of every kind of mask; a single kind has 1."""
  if kind not in (*MASK_KINDS, "combined"):
    kinds = ", ".join((*MASK_KINDS, "combined"))
    raise ValueError(f"There is no mask kind {kind!r}; kinds: {kinds}.")
  if kind != "combined":
    probabilities = {kind: 1}
  elif probabilities is None:
    probabilities = vars(Masks().probabilities)
  unknown = sorted(set(probabilities) - set(MASK_KINDS))
  if unknown:
    raise ValueError(f"Probabilities name kinds that do not exist: {unknown}.")
  weights = {name: float(probabilities.get(name, 0)) for name in MASK_KINDS}
  if min(weights.values()) < 0 or not sum(weights.values()) > 0:
    raise ValueError(
      f"Probabilities of mask kinds must be 0 or more and not all 0, not {weights}."
    )
  return weights


def for_examples(sample: Sampler, key: jax.Array, index: jax.Array) -> jax.Array:
  """Returns one mask per example, `[B, S, S, 1]`.

  Example i gets `sample(fold_in(key, index[i]))`, whatever else is in the batch.

  Args:
    sample: see `make_sampler`.
    key: PRNG key.
    index: `[B]` int, positions in the global batch or stable ids of the examples.
  """
  return jax.vmap(lambda i: sample(jax.random.fold_in(key, i)))(index)


def _checked_shapes(shapes: Any) -> jax.Array:
  if shapes is None:
    raise ValueError("region=shapes needs silhouettes: pass `shapes`.")
  shapes = np.asarray(shapes)
  if shapes.ndim != 4 or shapes.shape[1] != shapes.shape[2] or shapes.shape[3] != 1:
    raise ValueError(f"shapes must be [N, s, s, 1], not {shapes.shape}.")
  if not len(shapes) or not (shapes > 0).any(axis=(1, 2, 3)).all():
    raise ValueError("shapes must hold at least one silhouette, and none empty.")
  return jnp.asarray(shapes > 0)
