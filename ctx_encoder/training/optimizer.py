"""Update rules that leave alone what no gradient ever reaches."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

Path = tuple[str, ...]
Region = tuple[slice, ...] | None


def restrict(
  optimizer: optax.GradientTransformation, regions: Mapping[Path, Region]
) -> optax.GradientTransformation:
  """Returns an update rule that sees, of some parameters, only a region.

  Outside it the updates are 0 and there is no optimiser state: of the 33 million
  weights of 'Monet's first transposed kernel, which is laid on a single pixel, three
  quarters are never read, and Adam would pass over all of them.

  Args:
    optimizer: any rule that treats each element by itself.
    regions: path of a parameter in the nested dict (of those that are not listed, all
      is seen) to slices of its first axes, or None for nothing of it.
  """
  if not regions:
    return optimizer

  def cut(tree):
    return _map(_part, tree, regions)

  def init(params):
    return optimizer.init(cut(params))

  def update(updates, state, params=None):
    shapes = jax.tree.map(jnp.shape, updates)
    seen = None if params is None else cut(params)
    updates, state = optimizer.update(cut(updates), state, seen)
    return _map(_whole, updates, regions, shapes), state

  return optax.GradientTransformation(init, update)


def _part(x: jax.Array, region: Region):
  return optax.MaskedNode() if region is None else x[region]


def _whole(part, region: Region, shape: tuple[int, ...]) -> jax.Array:
  if region is None:
    return jnp.zeros(shape)
  return jnp.pad(part, _margins(region, shape))


def _map(function, tree: Any, regions: Mapping[Path, Region], *rest: Any):
  """Maps over the leaves that have a region; the others stay as they are."""
  if () in regions:
    return function(tree, regions[()], *rest)
  names = {path[0] for path in regions}
  missing = sorted(names - set(tree))
  if missing:
    raise ValueError(f"There are no parameters {missing} among {sorted(tree)}.")

  def below(name):
    inner = {path[1:]: region for path, region in regions.items() if path[0] == name}
    return _map(function, tree[name], inner, *(other[name] for other in rest))

  return {name: below(name) if name in names else tree[name] for name in tree}


def _margins(region: tuple[slice, ...], shape: tuple[int, ...]):
  limits = [part.indices(size) for part, size in zip(region, shape, strict=False)]
  margins = [
    (start, size - stop) for (start, stop, _), size in zip(limits, shape, strict=False)
  ]
  return margins + [(0, 0)] * (len(shape) - len(margins))
