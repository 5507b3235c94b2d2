"""The weights that come with the package: their names, card and arrays."""

import functools
import hashlib
import importlib.resources
import json
from typing import Any

from ctx_encoder.models.weights.read import Arrays, load

NAME = "landscape"
SIDE = 128  # of the last crops that they were trained on, pixels


@functools.cache
def card() -> dict[str, Any]:
  """Returns what is known of the weights: data, licence, recipe, figures, checksum."""
  return json.loads((folder() / f"{NAME}.json").read_text(encoding="utf-8"))


def arrays() -> Arrays:
  """Returns the parameters of `models.Landscape`, by names as "stem/kernel".

  Raises:
    ValueError: the file of the weights has changed since it was published.
    ModuleNotFoundError: safetensors is not installed.
  """
  with importlib.resources.as_file(folder() / f"{NAME}.safetensors") as path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != card()["sha256"]:
      raise ValueError(
        f"{path} is damaged: its SHA-256 is {digest}, not {card()['sha256']}."
        " Install the package again."
      )
    return load(path)


def folder():
  """Returns the folder of the weights and their card."""
  return importlib.resources.files("ctx_encoder") / "inpaint" / "weights"
