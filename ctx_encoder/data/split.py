"""The split into training and validation, a function of each example's name."""

import hashlib
import os
import re
import zlib
from collections.abc import Sequence

import numpy as np

COPY = re.compile(r"_aug\d+(?=\.\w+$)")  # copies from `ctx-encoder augment`


def example_ids(names: Sequence[str]) -> np.ndarray:
  """Returns int32 `[N]`: the CRC-32 of each name, cut to 31 bits."""
  return np.array([_crc(name) & 0x7FFFFFFF for name in names], np.int32)


def validation_mask(names: Sequence[str], fraction: float) -> np.ndarray:
  """Returns which examples belong to the validation split.

  An example belongs to it if the hash of its name, in [0, 1), is below `fraction`. So
  it stays in its split when other examples are added or removed, and a larger fraction
  only adds examples. Augmented copies (`monet_aug03.jpg`) follow their original
  (`monet.jpg`).

  Args:
    names: `N` names.
    fraction: expected share of the validation split, in [0, 1].
  Returns:
    bool `[N]`, True = validation.
  """
  originals = (COPY.sub("", name) for name in names)
  return np.array([_uniform(name) < fraction for name in originals], bool)


def subset(names: Sequence[str], max_images: int) -> list[int]:
  """Returns the positions of at most `max_images` names, ascending; 0 = all.

  The choice uses another hash than the split, so the validation share is kept.
  """
  if not 0 < max_images < len(names):
    return list(range(len(names)))
  by_hash = sorted(range(len(names)), key=lambda i: (_crc(names[i]), names[i]))
  return sorted(by_hash[:max_images])


def _uniform(name: str) -> float:
  digest = hashlib.blake2b(os.fsencode(name), digest_size=6).digest()
  return int.from_bytes(digest, "big") / 2**48


def _crc(name: str) -> int:
  return zlib.crc32(os.fsencode(name))
