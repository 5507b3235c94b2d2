"""A trained generator as a file that runs without this package.

What is written completes images: `(images, masks)` to the completed images, all of them
uint8, for any number of images. BatchNorm is folded away, the weights are in the file.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

from ctx_encoder.data import files
from ctx_encoder.training.inference import make_complete
from ctx_encoder.training.trained import Trained

PLATFORMS = ("cpu", "cuda", "tpu")

Completion = Callable[[jax.Array, jax.Array], jax.Array]


def completion(model: Trained) -> Completion:
  """Returns what is exported: `complete(images, masks)`, a pure function.

  It takes uint8 images `[B, S, S, 3]` and uint8 masks `[B, S, S, 1]`, 0 = known and all
  else hole, and returns uint8 `[B, S, S, 3]` whose known pixels are those that came in.
  For a bottleneck with noise, that of the i-th image is always the same.
  """
  complete = make_complete(model.generator, model.variables, model.task)

  def function(images: jax.Array, masks: jax.Array) -> jax.Array:
    keys = None
    if model.config.model.noise_dim:
      numbers = jnp.arange(images.shape[0])
      keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(numbers)
    return complete(images, masks > 0, keys)

  return function


def description(model: Trained) -> dict[str, Any]:
  """Returns what one needs to know to call the file, and where it is from; JSON."""
  size = model.task.image_size
  return {
    "what": "completes images: known pixels come back as they are",
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
  """Returns the lowered program, for any batch size on each of the platforms."""
  (batch,) = jax_export.symbolic_shape("batch")
  size = model.task.image_size
  images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
  masks = jax.ShapeDtypeStruct((batch, size, size, 1), jnp.uint8)
  function = jax.jit(completion(model))
  return jax_export.export(function, platforms=platforms)(images, masks)


def write_stablehlo(model: Trained, path: Path) -> None:
  """Writes the program for `jax.export.deserialize`, and its description beside it.

  Args:
    model: the trained generator.
    path: file to write; the description is `<path>.json`.

  Raises:
    OSError: it cannot be written.
  """
  files.write(path, bytes(exported(model).serialize()))
  text = json.dumps(description(model), indent=1) + "\n"
  files.write(path.with_name(f"{path.name}.json"), text)


def write_savedmodel(model: Trained, folder: Path) -> None:
  """Writes a SavedModel for `tf.saved_model.load` and TensorFlow Serving.

  The object has a method `complete(images, masks)`, which is the signature
  "serving_default" too. The program is StableHLO, which TensorFlow compiles by XLA.

  Args:
    model: the trained generator.
    folder: to write to; a SavedModel that is there is replaced. The description is in
      `assets.extra`.

  Raises:
    ModuleNotFoundError: TensorFlow is not installed.
    FileExistsError: there is something else.
    ValueError: the installed TensorFlow cannot run what the installed jax writes.
    OSError: it cannot be written.
  """
  check_savedmodel(folder)
  import tensorflow as tf
  from jax.experimental import jax2tf

  size = model.task.image_size
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
  try:  # TensorFlow reads the program when it is first called
    module.complete(*(np.zeros((1, size, size, c), np.uint8) for c in (3, 1)))
  except tf.errors.OpError as error:
    if "StableHLO" not in str(error):
      raise
    raise ValueError(
      f"TensorFlow {tf.__version__} cannot run what jax {jax.__version__} writes, which"
      " is newer StableHLO: export with an older jax (0.10 goes with TensorFlow 2.21)."
    ) from error
  folder.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as temporary:
    new = Path(temporary) / "new"
    tf.saved_model.save(module, str(new), signatures={"serving_default": serving})
    extra = new / "assets.extra"  # where TensorFlow leaves other programs' files alone
    extra.mkdir()
    (extra / "description.json").write_text(json.dumps(description(model), indent=1))
    if folder.exists():
      shutil.rmtree(folder)
    os.replace(new, folder)


def check_savedmodel(folder: Path) -> None:
  """Raises FileExistsError where something else than a SavedModel would be lost."""
  if not folder.exists() or (folder / "saved_model.pb").is_file():
    return
  if not folder.is_dir() or any(folder.iterdir()):
    raise FileExistsError(
      f"{folder} is there and is no SavedModel, which is a folder of its own. Name"
      " another one with --output."
    )
