"""The generator's layers as Keras has them, and weights between the two.

Kernels have the same layout in both. A file of Keras 3 keeps the order of layers of one
class, and older ones that of all layers; names are anybody's. So layers are matched in
order, those of one kind with each other, and have to have the same shapes.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ctx_encoder.data import files
from ctx_encoder.models import Generator, Stage
from ctx_encoder.models import bottleneck as bottlenecks
from ctx_encoder.models.layers import BATCH_NORM_EPSILON, LEAKY_SLOPE, Settings

PyTree = Any

_KERNEL = (("params", "kernel"), ("params", "bias"))
_NORM = (
  ("params", "scale"),
  ("params", "bias"),
  ("batch_stats", "mean"),
  ("batch_stats", "var"),
)
# Of each class, where its weights are in ours, and what Keras calls them.
_WEIGHTS = {
  "Conv2D": (_KERNEL, ("kernel", "bias")),
  "Conv2DTranspose": (_KERNEL, ("kernel", "bias")),
  "Dense": (_KERNEL, ("kernel", "bias")),
  "BatchNormalization": (_NORM, ("gamma", "beta", "moving_mean", "moving_variance")),
}
# By the ranks of its weights, what kind of layer it is.
_KINDS = {(4, 1): "convolution", (2, 1): "dense", (1, 1, 1, 1): "BatchNorm"}
_AFTER = {
  "relu": ("ReLU", ""),
  "leaky_relu": ("LeakyReLU", f"negative_slope={LEAKY_SLOPE}"),
  "pool": ("MaxPooling2D", "3, strides=2"),
  "pool_same": ("MaxPooling2D", '3, strides=1, padding="same"'),
}


class Layer(NamedTuple):
  """A layer of the Keras model: its class, arguments, and path of its weights in ours.

  The path is empty where it has none.
  """

  kind: str
  arguments: str
  path: tuple[str, ...] = ()

  @property
  def code(self) -> str:
    return f"layers.{self.kind}({self.arguments})"


class Match(NamedTuple):
  """A layer of a file, and what it is of ours."""

  name: str
  path: tuple[str, ...]
  shape: tuple[int, ...]


def table(generator: Generator, params: PyTree) -> list[Layer]:
  """Returns the layers of the Keras model that is the same network, in order.

  Args:
    generator: of the report's tables, of any width, depth and size.
    params: its parameters, or their shapes.

  Raises:
    ValueError: it has a part that Keras has no layer for, or is no chain of layers.
  """
  encoder, middle, decoder = generator.encoder, generator.bottleneck, generator.decoder
  problem = None
  if generator.skips:
    problem = "model.skips, which is no chain of layers"
  elif not hasattr(encoder, "stages"):
    problem = "model.encoder, a network with weights of its own"
  elif not isinstance(middle, bottlenecks.Dense | bottlenecks.Conv):
    problem = "model.bottleneck=channelwise, which is no layer of Keras"
  elif middle.noise_dim:
    problem = "model.noise_dim, a second input"
  if problem:
    raise ValueError(
      f"Keras's weights are those of the report's tables, not {problem}."
    )
  found = []
  for i, stage in enumerate(encoder.stages):
    found += _stage(stage, encoder.settings, ("encoder", f"stage{i + 1}"))
  found += _bottleneck(middle, params["bottleneck"])
  for i, stage in enumerate(decoder.stages):
    path = ("decoder", f"stage{i + 1}")
    found += _stage(stage, decoder.settings, path, "Conv2DTranspose")
  found.append(
    Layer("Conv2DTranspose", '3, 4, strides=2, padding="same"', ("decoder", "output"))
  )
  if middle.side * 2 ** (len(decoder.stages) + 1) != decoder.size:
    found.append(
      Layer("Resizing", f'{decoder.size}, {decoder.size}, interpolation="bilinear"')
    )
  return [*found, Layer("Activation", '"tanh"')]


def _stage(
  stage: Stage, settings: Settings, path: tuple[str, str], kind: str = "Conv2D"
) -> list[Layer]:
  arguments = f"{settings.channels(stage.features)}, {stage.kernel}"
  arguments += f', strides={stage.stride}, padding="{stage.padding.lower()}"'
  found = [Layer(kind, arguments, (*path, "conv"))]
  for name in stage.then:
    if name == "norm":
      found.append(_norm(stage.momentum, path))
    elif name == "dropout":
      found.append(Layer("Dropout", f"{settings.rate(stage.dropout)}"))
    else:
      found.append(Layer(*_AFTER[name]))
  return found


def _norm(momentum: float, path: tuple[str, ...]) -> Layer:
  arguments = f"momentum={momentum}, epsilon={BATCH_NORM_EPSILON}"
  return Layer("BatchNormalization", arguments, (*path, "norm"))


def _bottleneck(middle: Any, params: PyTree) -> list[Layer]:
  path = ("bottleneck",)
  channels = middle.settings.channels(middle.features)
  if isinstance(middle, bottlenecks.Dense):
    side = middle.side
    return [
      Layer("Flatten", ""),
      Layer("Dense", f"{side * side * channels}", (*path, "dense")),
      Layer(*_AFTER["relu"]),
      Layer("Dropout", f"{middle.settings.rate(middle.dropout)}"),
      Layer("Reshape", f"({side}, {side}, {channels})"),
    ]
  kernel = params["conv"]["kernel"].shape[0]
  return [
    Layer("Conv2D", f'{channels}, {kernel}, padding="valid"', (*path, "conv")),
    Layer(*_AFTER["leaky_relu"]),
    _norm(middle.momentum, path),
  ]


def code(layers: Sequence[Layer], input_shape: Sequence[int], path: str) -> str:
  """Returns Python code that makes the Keras model and loads a file of weights."""
  rows = [f"keras.Input({tuple(input_shape)})", *(layer.code for layer in layers)]
  return "\n".join(
    [
      "import keras",
      "from keras import layers",
      "",
      "model = keras.Sequential([",
      *(f"  {row}," for row in rows),
      "])",
      f"model.load_weights({path!r})",
    ]
  )


def write(path: Path, layers: Sequence[Layer], variables: PyTree) -> None:
  """Writes weights for `model.load_weights` of a Keras model with these layers.

  Args:
    path: `.weights.h5`, as Keras 3 writes it, or else `.h5`, as Keras 1 and 2 did and 3
      reads. A file that is there is replaced.
    layers: see `table`.
    variables: the generator's "params" and "batch_stats".

  Raises:
    ModuleNotFoundError: h5py is not installed.
    OSError: the file cannot be written.
  """
  import h5py

  flat = flatten_dict(variables)

  def fill(new: Path) -> None:
    with h5py.File(new, "w") as file:
      put = _put_layer if path.name.endswith(".weights.h5") else _put_listed_layer
      names = []
      for layer in layers:
        if layer.path:
          places, variable_names = _WEIGHTS[layer.kind]
          arrays = [np.asarray(flat[kind, *layer.path, name]) for kind, name in places]
          names.append(_name(layer.kind, names))
          put(file, names[-1], dict(zip(variable_names, arrays, strict=True)))
      if put is _put_listed_layer:
        file.attrs["layer_names"] = np.array(names, "S")
        file.attrs["backend"], file.attrs["keras_version"] = "tensorflow", "2.15.0"

  files.write(path, fill)


def _name(kind: str, taken: Sequence[str]) -> str:
  """Returns what Keras calls the next layer of a class: conv2d, conv2d_1 and so on."""
  base = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.replace("2DT", "2d_t")).lower()
  same = sum(re.fullmatch(rf"{base}(_\d+)?", name) is not None for name in taken)
  return f"{base}_{same}" if same else base


def _put_layer(file: Any, name: str, arrays: Mapping[str, np.ndarray]) -> None:
  group = file.create_group(f"layers/{name}/vars")
  group.attrs["name"] = name
  for number, array in enumerate(arrays.values()):
    group[str(number)] = array


def _put_listed_layer(file: Any, name: str, arrays: Mapping[str, np.ndarray]) -> None:
  group = file.create_group(name)
  names = [f"{name}/{variable}:0" for variable in arrays]
  group.attrs["weight_names"] = np.array(names, "S")
  for variable, array in zip(names, arrays.values(), strict=True):
    group[variable] = array


def read(
  arrays: Mapping[str, np.ndarray], layers: Sequence[Layer], shapes: PyTree
) -> tuple[dict[str, PyTree], list[Match]]:
  """Returns the variables that a Keras file holds, and what was taken for what.

  Args:
    arrays: of the file, see `weights.load`, in its order.
    layers: see `table`.
    shapes: the generator's variables, or their shapes.

  Returns:
    "params" and "batch_stats", float32, and a match for each layer.

  Raises:
    ValueError: a layer does not fit, is missing, or is one too many.
  """
  theirs = _by_kind(arrays)
  expected: dict[tuple[str, ...], Any] = dict(flatten_dict(shapes))
  ours: dict[str, list[tuple[Layer, list[tuple[str, ...]]]]] = {}
  for layer in layers:
    if layer.path:
      places = [(part, *layer.path, name) for part, name in _WEIGHTS[layer.kind][0]]
      kind = _kind([expected[place].shape for place in places])
      assert kind is not None
      ours.setdefault(kind, []).append((layer, places))
  flat, matches = {}, {}
  for kind in _KINDS.values():
    wanted, found = ours.get(kind, []), theirs.get(kind, [])
    for (layer, places), (name, values) in zip(wanted, found, strict=False):
      for place, value in zip(places, values, strict=True):
        if value.shape != expected[place].shape:
          raise ValueError(
            f"Layer {name} of the file does not fit {'/'.join(layer.path)}: its"
            f" {place[-1]} is {value.shape}, not {expected[place].shape}."
          )
        flat[place] = np.asarray(value, np.float32)
      matches[layer.path] = Match(name, layer.path, values[0].shape)
    if len(wanted) != len(found):
      alone = ["/".join(layer.path) for layer, _ in wanted[len(found) :]]
      alone += [name for name, _ in found[len(wanted) :]]
      raise ValueError(
        f"The file has {len(found)} {kind} layers and the network {len(wanted)}:"
        f" without partner is {', '.join(alone)}."
      )
  variables = {"batch_stats": {}, **unflatten_dict(flat)}
  return variables, [matches[layer.path] for layer in layers if layer.path]


def _by_kind(
  arrays: Mapping[str, np.ndarray],
) -> dict[str, list[tuple[str, list[np.ndarray]]]]:
  """Returns the names and arrays of the layers of each kind."""
  by_layer: dict[str, list[np.ndarray]] = {}
  for name, array in arrays.items():
    by_layer.setdefault(name.rpartition("/")[0], []).append(array)
  found: dict[str, list[tuple[str, list[np.ndarray]]]] = {}
  for name, values in by_layer.items():
    kind = _kind([value.shape for value in values])
    if kind is not None:
      found.setdefault(kind, []).append((name, values))
    elif any(value.dtype.kind == "f" for value in values):  # else a random seed
      shapes = ", ".join(str(value.shape) for value in values)
      raise ValueError(
        f"Layer {name} of the file is of no kind in the network: {shapes}."
      )
  return found


def _kind(shapes: Sequence[tuple[int, ...]]) -> str | None:
  """Returns the kind of layer that has weights of these shapes, None if none has."""
  return _KINDS.get(tuple(map(len, shapes)))
