"""Holes for those who do not want to paint one."""

import functools

import jax
import numpy as np
from PIL import Image

from ctx_encoder import masks

# As the page calls them, and as `masks.make_sampler` does.
KINDS = {
  "center": "center",
  "block": "random_block",
  "region": "random_region",
  "strokes": "brush",
}

_SIDE = 256  # that they are drawn with; they are stretched to the picture


def draw(kind: str, width: int, height: int, seed: int = 0) -> np.ndarray:
  """Returns a hole of one of `KINDS`, bool `[height, width]`, true = hole."""
  square = _sampler(kind)(jax.random.key(seed))
  gray = Image.fromarray(np.asarray(square[..., 0] * 255).astype(np.uint8))
  return np.asarray(gray.resize((width, height), Image.Resampling.BILINEAR)) > 127


@functools.cache
def _sampler(kind: str) -> masks.Sampler:
  return jax.jit(masks.make_sampler(KINDS[kind], _SIDE))
