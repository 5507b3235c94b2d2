"""The network that comes with the package: weights, their card, and its loading."""

import functools
import hashlib
import importlib.resources
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from flax import traverse_util

from ctx_encoder import config, xla
from ctx_encoder.models import Landscape, weights
from ctx_encoder.training.inference import Complete, make_complete
from ctx_encoder.training.task import View

if TYPE_CHECKING:
  from ctx_encoder.training.trained import Trained

NAME = "landscape"


def view(image_size: int) -> View:
  """Returns the input and output of the network, for a side that is a multiple of 8."""
  return View(
    image_size=image_size,
    fill=None,
    normalization="symmetric",
    mask_channel=True,
    predict="residual",
  )


@functools.cache
def card() -> dict[str, Any]:
  """Returns what is known of the weights: data, licence, recipe, figures, checksum."""
  return json.loads((_folder() / f"{NAME}.json").read_text(encoding="utf-8"))


@functools.cache
def variables() -> dict[str, Any]:
  """Returns the variables of `models.Landscape`, float32.

  Raises:
    ValueError: the file of the weights has changed since it was published.
    ModuleNotFoundError: safetensors is not installed.
  """
  with importlib.resources.as_file(_folder() / f"{NAME}.safetensors") as path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != card()["sha256"]:
      raise ValueError(
        f"{path} is damaged: its SHA-256 is {digest}, not {card()['sha256']}."
        " Install the package again."
      )
    arrays = weights.load(path)
  params = {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}
  return {"params": traverse_util.unflatten_dict(params, sep="/")}


def model(image_size: int) -> "Trained":
  """Returns the network like that of a run, for one side."""
  from ctx_encoder.training.trained import Trained  # loads Orbax, which takes seconds

  settings = config.default()
  settings.update(
    {
      "name": NAME,
      "data.image_size": image_size,
      "model.generator": NAME,
      "model.mask_channel": True,
      "model.predict": "residual",
      "masks.fill": "smooth",
    }
  )
  folder = Path(str(_folder()))
  return Trained(folder, 0, settings, Landscape(), variables(), view(image_size))


def complete(image_size: int) -> Complete:
  """Returns `inference.make_complete` of the network, for one side."""
  return make_complete(Landscape(), variables(), view(image_size))


def keep_compiled() -> None:
  """Keeps what is compiled in the user's cache folder, for later processes.

  It is `$XDG_CACHE_HOME/ctx_encoder`, or `~/.cache/ctx_encoder`. Does nothing if
  JAX_COMPILATION_CACHE_DIR names a folder.
  """
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    xla.cache_in(Path(home, "ctx_encoder"))


def _folder():
  return importlib.resources.files("ctx_encoder.inpaint") / "weights"
