"""Ready-made holes for the page."""

import functools

import jax
import numpy as np
from PIL import Image

from ctx_encoder import masks

# Names in the API: kinds of `masks.make_sampler`.
KINDS = {
  "center": "center",
  "block": "random_block",
  "region": "random_region",
  "strokes": "brush",
}

_SIDE = 256  # holes are drawn as squares of this side and stretched to the picture


def draw(kind: str, width: int, height: int, seed: int = 0) -> np.ndarray:
  """Draws a hole of one of `KINDS`; returns bool `[height, width]`, true = hole."""
  square = _sampler(kind)(jax.random.key(seed))
  gray = Image.fromarray(np.asarray(square[..., 0] * 255).astype(np.uint8))
  return np.asarray(gray.resize((width, height), Image.Resampling.BILINEAR)) > 127


@functools.cache
def _sampler(kind: str) -> masks.Sampler:
  return jax.jit(masks.make_sampler(KINDS[kind], _SIDE))
