"""A generator's layers as a Keras model, and weights from and to Keras.

Kernels have the same layout in both. Layer names in a file are arbitrary. Files of
Keras 3 keep the order of layers within each class, older ones that of all layers. So
layers of the same kind are matched in order, and their shapes must agree.
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
# {class: (its variables in ours, their names in Keras)}
_WEIGHTS = {
  "Conv2D": (_KERNEL, ("kernel", "bias")),
  "Conv2DTranspose": (_KERNEL, ("kernel", "bias")),
  "Dense": (_KERNEL, ("kernel", "bias")),
  "BatchNormalization": (_NORM, ("gamma", "beta", "moving_mean", "moving_variance")),
}
# {ranks of a layer's weights: its kind}
_KINDS = {(4, 1): "convolution", (2, 1): "dense", (1, 1, 1, 1): "BatchNorm"}
_AFTER = {
  "relu": ("ReLU", ""),
  "leaky_relu": ("LeakyReLU", f"negative_slope={LEAKY_SLOPE}"),
  "pool": ("MaxPooling2D", "3, strides=2"),
  "pool_same": ("MaxPooling2D", '3, strides=1, padding="same"'),
}


class Layer(NamedTuple):
  """A layer of the Keras model: class, arguments, path of its weights in ours.

  The path is empty for a layer without weights.
  """

  kind: str
  arguments: str
  path: tuple[str, ...] = ()

  @property
  def code(self) -> str:
    return f"layers.{self.kind}({self.arguments})"


class Match(NamedTuple):
  """A layer of a file and the path of the layer of ours that it matches."""

  name: str
  path: tuple[str, ...]
  shape: tuple[int, ...]


def table(generator: Generator, params: PyTree) -> list[Layer]:
  """Returns the layers of the equivalent Keras model, in order.

  Args:
    generator: a network of the report, of any width, depth and size.
    params: its parameters, or their shapes.

  Raises:
    ValueError: the generator has a layer that Keras lacks, or is not sequential.
  """
  encoder, middle, decoder = generator.encoder, generator.bottleneck, generator.decoder
  problem = None
  if generator.skips:
    problem = "model.skips, since Keras's model is sequential"
  elif not hasattr(encoder, "stages"):
    problem = "model.encoder, a pretrained network"
  elif not isinstance(middle, bottlenecks.Dense | bottlenecks.Conv):
    problem = "model.bottleneck=channelwise, since Keras has no such layer"
  elif middle.noise_dim:
    problem = "model.noise_dim, a second input"
  if problem:
    raise ValueError(f"Networks for Keras cannot have {problem}.")
  found = []
  for i, stage in enumerate(encoder.stages):
    found += _stage(stage, encoder.settings, ("encoder", f"stage{i + 1}"))
  found += _bottleneck(middle, params["bottleneck"])
  for i, stage in enumerate(decoder.stages):
    path = ("decoder", f"stage{i + 1}")
    found += _stage(stage, decoder.settings, path, decoder.upsample)
  found += _upsampling(3, 4, 2, decoder.upsample, ("decoder", "output"))
  if middle.side * 2 ** (len(decoder.stages) + 1) != decoder.size:
    found.append(
      Layer("Resizing", f'{decoder.size}, {decoder.size}, interpolation="bilinear"')
    )
  return [*found, Layer("Activation", '"tanh"')]


def _stage(
  stage: Stage, settings: Settings, path: tuple[str, str], upsample: str | None = None
) -> list[Layer]:
  shape = settings.channels(stage.features), stage.kernel, stage.stride
  if upsample:
    found = _upsampling(*shape, upsample, (*path, "conv"))
  else:
    arguments = "{}, {}, strides={}, ".format(*shape)
    arguments += f'padding="{stage.padding.lower()}"'
    found = [Layer("Conv2D", arguments, (*path, "conv"))]
  for name in stage.then:
    if name == "norm":
      found.append(_norm(stage.momentum, path))
    elif name == "dropout":
      found.append(Layer("Dropout", f"{settings.rate(stage.dropout)}"))
    else:
      found.append(Layer(*_AFTER[name]))
  return found


def _upsampling(
  features: int, kernel: int, stride: int, kind: str, path: tuple[str, ...]
) -> list[Layer]:
  if kind == "transposed":
    arguments = f'{features}, {kernel}, strides={stride}, padding="same"'
    return [Layer("Conv2DTranspose", arguments, path)]
  arguments = f'{features}, 3, padding="same"'
  return [Layer("UpSampling2D", f"{stride}"), Layer("Conv2D", arguments, path)]


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
  """Returns Python code that builds the Keras model and loads a file of weights."""
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
  """Writes weights that `model.load_weights` of the Keras model reads.

  Args:
    path: `.weights.h5` for Keras 3, any other `.h5` for Keras 1 to 3. An existing file
      is replaced.
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
  """Returns Keras's name of the next layer of a class: conv2d, conv2d_1, ..."""
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
  """Returns a generator's variables from the arrays of a Keras file.

  Args:
    arrays: the file's arrays in its order, see `weights.load`.
    layers: see `table`.
    shapes: the generator's variables, or their shapes.

  Returns:
    "params" and "batch_stats", float32, and a match for each layer.

  Raises:
    ValueError: a layer has a wrong shape, is missing, has no counterpart, or has
      infinite or NaN values.
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
            f"Layer {name} of the file does not match {'/'.join(layer.path)}: its"
            f" {place[-1]} is {value.shape}, not {expected[place].shape}."
          )
        with np.errstate(over="ignore"):
          flat[place] = np.asarray(value, np.float32)
        if not np.isfinite(flat[place]).all():
          raise ValueError(
            f"Layer {name} of the file has infinite or NaN values in its {place[-1]}."
          )
      matches[layer.path] = Match(name, layer.path, values[0].shape)
    if len(wanted) != len(found):
      unmatched = ["/".join(layer.path) for layer, _ in wanted[len(found) :]]
      unmatched += [name for name, _ in found[len(wanted) :]]
      raise ValueError(
        f"The file has {len(found)} {kind} layers and the network {len(wanted)};"
        f" unmatched layers: {', '.join(unmatched)}."
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
        f"Layer {name} of the file has weights of a kind that the network does not"
        f" have: {shapes}."
      )
  return found


def _kind(shapes: Sequence[tuple[int, ...]]) -> str | None:
  """Returns the kind of layer with weights of these shapes, None if unknown."""
  return _KINDS.get(tuple(map(len, shapes)))
