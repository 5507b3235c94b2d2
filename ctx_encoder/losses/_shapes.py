"""Checks made while tracing: a wrong shape or mask never passes silently."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.core import Tracer


def check_images(
  predictions: jax.Array, targets: jax.Array, mask: jax.Array | None = None
) -> None:
  """Raises ValueError unless the arrays are `[B, H, W, C]` twice and `[B, H, W, 1]`."""
  if predictions.ndim != 4 or predictions.shape != targets.shape:
    raise ValueError(
      "predictions and targets must have one shape [B, H, W, C], not"
      f" {predictions.shape} and {targets.shape}."
    )
  if mask is not None:
    check_mask(mask, predictions.shape)


def check_mask(mask: jax.Array, shape: tuple[int, ...]) -> None:
  """Raises ValueError unless the mask is `[B, H, W, 1]`, and 0 or 1 where it is known.

  Inside `jax.jit` the values are not known, and only the shape is checked.
  """
  if mask.shape != (*shape[:3], 1):
    raise ValueError(
      f"mask must be [B, H, W, 1] = {(*shape[:3], 1)} for images of {shape}, not"
      f" {mask.shape}."
    )
  if isinstance(mask, Tracer):
    return
  values = np.asarray(mask)
  wrong = values[(values != 0) & (values != 1)]
  if wrong.size:
    raise ValueError(
      f"mask must be 1 in the hole and 0 elsewhere; it has the value {wrong[0]!s}."
    )


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
  """Raises ValueError unless both hold the same layers `[B, h, w, C]`, and some.

  With `channels_only`, h and w may differ between the two.
  """
  if not outputs or set(outputs) != set(targets):
    raise ValueError(
      f"Both must hold the same layers, at least one: {sorted(outputs)} and"
      f" {sorted(targets)}."
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
