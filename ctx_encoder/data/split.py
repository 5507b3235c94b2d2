"""Who is in training and who in validation: functions of an example's name alone."""

import hashlib
import os
import re
import zlib
from collections.abc import Sequence

import numpy as np

COPY = re.compile(r"_aug\d+(?=\.\w+$)")  # what `ctx-encoder augment` appends


def example_ids(names: Sequence[str]) -> np.ndarray:
  """Returns int32 `[N]`: a stable 31-bit number for each name (its CRC-32)."""
  return np.array([_crc(name) & 0x7FFFFFFF for name in names], np.int32)


def validation_mask(names: Sequence[str], fraction: float) -> np.ndarray:
  """Tells which examples are kept for validation.

  A name is, where its hash in [0, 1) is below `fraction`. So an example stays where
  it is when others are added or taken away, and a larger fraction only adds to it.
  Augmented copies (`monet_aug03.jpg`) go where their original (`monet.jpg`) goes.

  Args:
    names: `N` names.
    fraction: share of examples kept for validation, in [0, 1].
  Returns:
    bool `[N]`, True = validation.
  """
  originals = (COPY.sub("", name) for name in names)
  return np.array([_uniform(name) < fraction for name in originals], bool)


def subset(names: Sequence[str], max_images: int) -> list[int]:
  """Returns the positions of at most `max_images` names, ascending; 0 = all.

  Taken by another hash than the split's, so the share of validation stays.
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
