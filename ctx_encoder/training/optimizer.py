"""Restricts an optimizer to the slices of parameters that receive gradients."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

Path = tuple[str, ...]
Slices = tuple[slice, ...] | None


def trainable(network: Any) -> Mapping[Path, Slices]:
  """Returns the trainable slices that a network names, see `Generator.trainable`."""
  return network.trainable() if hasattr(network, "trainable") else {}


def restrict(
  optimizer: optax.GradientTransformation, trainable: Mapping[Path, Slices]
) -> optax.GradientTransformation:
  """Returns an optimizer that updates only slices of some parameters.

  Outside them the updates are 0 and there is no optimizer state. Of the 33 million
  weights of Monet's first transposed kernel, whose input is a single pixel, three
  quarters never receive a gradient, and Adam would still read and write their moments.

  Args:
    optimizer: any elementwise rule.
    trainable: path of a parameter in the nested dict to slices of its first axes, or
      to None for a frozen one. Parameters that are not listed are trained completely.
  """
  if not trainable:
    return optimizer

  def cut(tree):
    return map_slices(_part, tree, trainable)

  def init(params):
    return optimizer.init(cut(params))

  def update(updates, state, params=None):
    shapes = jax.tree.map(jnp.shape, updates)
    params = None if params is None else cut(params)
    updates, state = optimizer.update(cut(updates), state, params)
    return map_slices(padded, updates, trainable, shapes), state

  return optax.GradientTransformation(init, update)


def _part(x: jax.Array, slices: Slices):
  return optax.MaskedNode() if slices is None else x[slices]


def padded(part, slices: Slices, shape: tuple[int, ...]) -> jax.Array:
  """Returns an array of `shape` that is `part` in its slices, and 0 elsewhere."""
  if slices is None:
    return jnp.zeros(shape)
  limits = [part.indices(n) for part, n in zip(slices, shape, strict=False)]
  margins = [
    (start, n - stop) for (start, stop, _), n in zip(limits, shape, strict=False)
  ]
  return jnp.pad(part, margins + [(0, 0)] * (len(shape) - len(margins)))


def map_slices(function, tree: Any, trainable: Mapping[Path, Slices], *rest: Any):
  """Maps over the listed leaves; the others stay as they are."""
  if () in trainable:
    return function(tree, trainable[()], *rest)
  names = {path[0] for path in trainable}
  missing = sorted(names - set(tree))
  if missing:
    raise ValueError(f"There are no parameters {missing} among {sorted(tree)}.")

  def below(name):
    inner = {path[1:]: slices for path, slices in trainable.items() if path[0] == name}
    return map_slices(function, tree[name], inner, *(other[name] for other in rest))

  return {name: below(name) if name in names else tree[name] for name in tree}
