"""The network that comes with the package, ready to complete images."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import traverse_util

from ctx_encoder import config, xla
from ctx_encoder.inpaint import kept
from ctx_encoder.models import Landscape
from ctx_encoder.models.weights.package import NAME, SIDE, arrays, card, folder
from ctx_encoder.training.inference import Complete, make_complete
from ctx_encoder.training.task import View

if TYPE_CHECKING:
  from ctx_encoder.training.trained import Trained

__all__ = ["NAME", "SIDE", "card", "complete", "keep_compiled", "model", "variables"]


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
def variables() -> dict[str, Any]:
  """Returns the variables of `models.Landscape`, float32.

  Raises: as `package.arrays`.
  """
  params = {name: np.asarray(x, np.float32) for name, x in arrays().items()}
  return {"params": traverse_util.unflatten_dict(jax.device_put(params), sep="/")}


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
  return Trained(
    Path(str(folder())), 0, settings, Landscape(), variables(), view(image_size)
  )


def complete(image_size: int) -> Complete:
  """Returns `inference.make_complete` of the network, for one side.

  With a compilation cache, see `keep_compiled`, its trace is kept there too.
  """
  params = variables()

  def function(params, images, masks, keys):
    return make_complete(Landscape(), params, view(image_size))(images, masks, keys)

  cache = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
  if not cache:
    return make_complete(Landscape(), params, view(image_size))
  compiled = kept.jit(function, f"{NAME}-{image_size}", Path(cache))
  return lambda images, masks, keys=None: compiled(params, images, masks, keys)


def keep_compiled() -> None:
  """Keeps what is compiled in the user's cache folder, for later processes.

  It is `$XDG_CACHE_HOME/ctx_encoder`, or `~/.cache/ctx_encoder`. Does nothing if
  JAX_COMPILATION_CACHE_DIR names a folder.
  """
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    xla.cache_in(Path(home, "ctx_encoder"))
