"""Exports a trained generator as a file that runs without this package.

The exported function maps `(images, masks)` to completed images, all uint8, for any
batch size. The file includes the weights, with BatchNorm folded into convolutions.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from ctx_encoder.data import files
from ctx_encoder.inpaint import onnx_graph
from ctx_encoder.training.inference import make_complete
from ctx_encoder.training.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")

Completion = Callable[[jax.Array, jax.Array], jax.Array]


def completion(model: Trained) -> Completion:
  """Returns the function to export, `complete(images, masks)`.

  It takes uint8 images `[B, S, S, 3]` and uint8 masks `[B, S, S, 1]`, 0 = known, other
  values = hole, and returns completed images, uint8 `[B, S, S, 3]`, with known pixels
  unchanged. If the bottleneck has noise, the i-th image always gets the same noise.
  """
  complete = make_complete(model.generator, model.variables, model.view)

  def function(images: jax.Array, masks: jax.Array) -> jax.Array:
    keys = None
    if model.config.model.noise_dim:
      numbers = jnp.arange(images.shape[0])
      keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(numbers)
    return complete(images, masks > 0, keys)

  return function


def description(model: Trained) -> dict[str, Any]:
  """Returns inputs, outputs and origin of the exported function, for JSON."""
  size = model.view.image_size
  return {
    "what": "completes images; known pixels are unchanged",
    "images": {"dtype": "uint8", "shape": ["batch", size, size, 3], "colors": "RGB"},
    "masks": {
      "dtype": "uint8",
      "shape": ["batch", size, size, 1],
      "polarity": "0 = known, anything else = hole",
    },
    "completed": {"dtype": "uint8", "shape": ["batch", size, size, 3]},
    "name": model.name,
    "step": model.step,
    "jax": jax.__version__,
  }


def exported(
  model: Trained, platforms: Sequence[str] = PLATFORMS
) -> jax_export.Exported:
  """Lowers the function for any batch size on each of the platforms."""
  (batch,) = jax_export.symbolic_shape("batch")
  size = model.view.image_size
  images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
  masks = jax.ShapeDtypeStruct((batch, size, size, 1), jnp.uint8)
  function = jax.jit(completion(model))
  return jax_export.export(function, platforms=platforms)(images, masks)


def write_stablehlo(model: Trained, path: Path) -> None:
  """Writes a file for `jax.export.deserialize`, and its description.

  Args:
    model: the trained generator.
    path: file to write; the description is written to `<path>.json`.

  Raises:
    OSError: a file cannot be written.
  """
  files.write(path, bytes(exported(model).serialize()))
  _describe(model, path)


def write_onnx(model: Trained, path: Path) -> None:
  """Writes an ONNX file, opset 18, and its description.

  Raises:
    ValueError: the network has noise that depends on the example, or an operation that
      has no counterpart.
    ModuleNotFoundError: onnx is not installed.
    OSError: a file cannot be written.
  """
  if model.config.model.noise_dim:
    raise ValueError(
      "A network with noise (model.noise_dim) cannot be exported as ONNX, which has no"
      " random numbers of its own. Export as stablehlo or savedmodel."
    )
  side = model.view.image_size
  inputs: dict[str, Any] = {
    "images": ((side, side, 3), jnp.uint8),
    "masks": ((side, side, 1), jnp.uint8),
  }
  made = onnx_graph.convert(completion(model), inputs, "completed")
  files.write(path, made.SerializeToString())
  _describe(model, path)


def _describe(model: Trained, path: Path) -> None:
  files.write(path.with_name(f"{path.name}.json"), _description(model))


def _description(model: Trained) -> str:
  return json.dumps(description(model), indent=1) + "\n"


def write_savedmodel(model: Trained, folder: Path) -> None:
  """Writes a SavedModel for `tf.saved_model.load` and TensorFlow Serving.

  It has a method `complete(images, masks)`, also available as the signature
  "serving_default". The program is StableHLO, which TensorFlow compiles with XLA.

  Args:
    model: the trained generator.
    folder: folder to write; an existing SavedModel is replaced. The description is in
      `assets.extra`.

  Raises:
    ModuleNotFoundError: TensorFlow is not installed.
    FileExistsError: the folder holds something else than a SavedModel.
    ValueError: the installed TensorFlow cannot run the StableHLO of the installed jax.
    OSError: the folder cannot be written.
  """
  check_savedmodel(folder)
  import tensorflow as tf
  from jax.experimental import jax2tf

  size = model.view.image_size
  function = jax2tf.convert(
    completion(model),
    polymorphic_shapes=["(batch, ...)", "(batch, ...)"],
    with_gradient=False,
    native_serialization_platforms=PLATFORMS,
  )
  signature = [
    tf.TensorSpec([None, size, size, 3], tf.uint8, "images"),
    tf.TensorSpec([None, size, size, 1], tf.uint8, "masks"),
  ]
  module: Any = tf.Module()
  module.complete = tf.function(function, autograph=False, input_signature=signature)
  serving = tf.function(
    lambda images, masks: {"completed": module.complete(images, masks)},
    input_signature=signature,
  )
  try:  # TensorFlow compiles the program at the first call
    module.complete(*(np.zeros((1, size, size, c), np.uint8) for c in (3, 1)))
  except tf.errors.OpError as error:
    if "StableHLO" not in str(error):
      raise
    raise ValueError(
      f"TensorFlow {tf.__version__} cannot run the StableHLO of jax {jax.__version__},"
      " which is newer: export with an older jax (0.10 works with TensorFlow 2.21)."
    ) from error

  def save(new: Path) -> None:
    tf.saved_model.save(module, str(new), signatures={"serving_default": serving})
    # TensorFlow's folder for files of other programs.
    files.write(new / "assets.extra/description.json", _description(model))

  files.write_folder(folder, save)


def check_savedmodel(folder: Path) -> None:
  """Raises FileExistsError if the path exists and is not a SavedModel."""
  if not folder.exists() or (folder / "saved_model.pb").is_file():
    return
  if not folder.is_dir() or any(folder.iterdir()):
    raise FileExistsError(
      f"{folder} exists and is not a SavedModel folder. Name a new folder with"
      " --output."
    )
