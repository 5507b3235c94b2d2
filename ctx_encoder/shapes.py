"""Checks made while tracing, so that no wrong shape or mask passes silently."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def check_images(predictions: jax.Array, targets: jax.Array) -> None:
  """Raises ValueError unless both arrays have one shape `[B, H, W, C]`."""
  if predictions.ndim != 4 or predictions.shape != targets.shape:
    raise ValueError(
      "predictions and targets must have one shape [B, H, W, C], not"
      f" {predictions.shape} and {targets.shape}."
    )


def error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns predictions - targets in float32; raises as `check_images`."""
  check_images(predictions, targets)
  return predictions.astype(jnp.float32) - targets.astype(jnp.float32)


def check_region(region: jax.Array, shape: tuple[int, ...]) -> None:
  """Raises ValueError unless the region is `[B, H, W, 1]` for images of `shape`."""
  if region.shape != (*shape[:3], 1):
    raise ValueError(
      f"region must be [B, H, W, 1] for images [B, H, W, C], not {region.shape} for"
      f" {shape}."
    )


def checked_mask(mask: jax.Array, shape: tuple[int, ...] | None = None) -> jax.Array:
  """Returns a mask of any type as float32.

  Inside `jax.jit` the values are unknown, and only the shape is checked.

  Args:
    mask: `[B, H, W, 1]`, 1 = hole.
    shape: of the images, `[B, H, W, C]`; None = any.

  Raises:
    ValueError: the shape is wrong, or a known value is neither 0 nor 1.
  """
  if shape is None and (mask.ndim != 4 or mask.shape[3] != 1):
    raise ValueError(f"mask must be [B, H, W, 1], not {mask.shape}.")
  if shape is not None and mask.shape != (*shape[:3], 1):
    raise ValueError(
      f"mask must be [B, H, W, 1] = {(*shape[:3], 1)} for images of {shape}, not"
      f" {mask.shape}."
    )
  if not isinstance(mask, Tracer):
    values = np.asarray(mask)
    wrong = values[(values != 0) & (values != 1)]
    if wrong.size:
      raise ValueError(
        f"mask must be 1 in the hole and 0 elsewhere; it has the value {wrong[0]!s}."
      )
  return jnp.asarray(mask, jnp.float32)


def check_logits(logits: jax.Array, name: str) -> None:
  """Raises ValueError unless there is a batch axis."""
  if logits.ndim < 1:
    raise ValueError(f"{name} must have a batch axis, not the shape {logits.shape}.")


def check_features(
  outputs: Mapping[str, jax.Array],
  targets: Mapping[str, jax.Array],
  *,
  channels_only: bool = False,
) -> None:
  """Raises ValueError unless both hold the same layers `[B, h, w, C]`, at least one.

  With `channels_only`, h and w may differ between the two.
  """
  if not outputs or set(outputs) != set(targets):
    raise ValueError(
      f"outputs and targets must hold the same layers, at least one: {sorted(outputs)}"
      f" and {sorted(targets)}."
    )
  for name, output in outputs.items():
    target = targets[name]
    same = output.shape == target.shape
    if channels_only:
      same = (output.shape[0], output.shape[-1]) == (target.shape[0], target.shape[-1])
    if output.ndim != 4 or target.ndim != 4 or not same:
      raise ValueError(
        f"Features of layer {name!r} must have one shape [B, h, w, C], not"
        f" {output.shape} and {target.shape}."
      )
