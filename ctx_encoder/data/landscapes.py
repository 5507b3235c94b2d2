"""The embedded landscape photographs: names, scenes, pixels and split.

They are in the public domain; landscapes/NOTICE names author and source of each, and
tools/landscapes.py rebuilds them.
"""

import functools
import hashlib
import importlib.resources
import io
import json
from collections.abc import Mapping

import numpy as np
from PIL import Image

VALIDATION_SHARE = 0.2  # of the photographs, at least


def folder():
  """Returns the folder of the photographs, manifest.json and NOTICE, a Traversable."""
  return importlib.resources.files("ctx_encoder.data") / "landscapes"


@functools.cache
def manifest() -> Mapping[str, Mapping[str, str]]:
  """Returns {name: row}: file, group, author, source, licence, original, sha256."""
  content = json.loads((folder() / "manifest.json").read_text(encoding="utf-8"))
  return {row["file"].removesuffix(".webp"): row for row in content["photographs"]}


def names() -> tuple[str, ...]:
  """Returns the names of all photographs, sorted."""
  return tuple(sorted(manifest()))


def groups() -> dict[str, tuple[str, ...]]:
  """Returns {group: sorted names}; photographs of one scene share a group."""
  found: dict[str, list[str]] = {}
  for name in names():
    found.setdefault(manifest()[name]["group"], []).append(name)
  return {group: tuple(members) for group, members in sorted(found.items())}


def split() -> tuple[tuple[str, ...], tuple[str, ...]]:
  """Splits the photographs by group, the same way always.

  Groups go to validation in the order of their names' SHA-256 until it has
  `VALIDATION_SHARE` of the photographs.

  Returns:
    Names of the training and of the validation photographs, sorted; no group has
    photographs in both.
  """
  by_group = groups()
  validation: list[str] = []
  for group in sorted(
    by_group, key=lambda group: hashlib.sha256(group.encode()).digest()
  ):
    if len(validation) >= VALIDATION_SHARE * len(names()):
      break
    validation.extend(by_group[group])
  training = set(names()).difference(validation)
  return tuple(sorted(training)), tuple(sorted(validation))


def encoded(name: str) -> bytes:
  """Returns the WebP file of a photograph.

  Raises:
    KeyError: there is no photograph of this name.
  """
  return (folder() / manifest()[name]["file"]).read_bytes()


def read(name: str) -> np.ndarray:
  """Decodes a photograph.

  Args:
    name: one of `names()`.
  Returns:
    uint8 `[H, W, 3]`, sRGB, `W` about twice `H`.
  Raises:
    KeyError: there is no photograph of this name.
  """
  with Image.open(io.BytesIO(encoded(name))) as image:
    return np.asarray(image.convert("RGB"))
