"""Checks of shapes, made while tracing: a wrong shape never broadcasts silently."""

import jax


def check_images(
  predictions: jax.Array, targets: jax.Array, mask: jax.Array | None = None
) -> None:
  """Raises ValueError unless the arrays are `[B, H, W, C]` twice and `[B, H, W, 1]`."""
  if predictions.ndim != 4 or predictions.shape != targets.shape:
    raise ValueError(
      "predictions and targets must have one shape [B, H, W, C], not"
      f" {predictions.shape} and {targets.shape}."
    )
  if mask is not None and mask.shape != (*predictions.shape[:3], 1):
    raise ValueError(
      f"mask must be [B, H, W, 1] = {(*predictions.shape[:3], 1)} for images of"
      f" {predictions.shape}, not {mask.shape}."
    )


def check_logits(logits: jax.Array, name: str) -> None:
  """Raises ValueError unless there is a batch axis."""
  if logits.ndim < 1:
    raise ValueError(f"{name} must have a batch axis, not the shape {logits.shape}.")
