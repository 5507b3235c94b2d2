"""Reads files of published weights into arrays by name.

The files may be hostile. Nothing in them is run, no other file is read, and memory is
bounded by the file's size (1032 times that if compressed; a string in a damaged HDF5
file may take up to 4 GiB for a moment).
"""

import io
import mmap
import os
import pathlib
import re
import textwrap
import zipfile
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ctx_encoder.models.weights import torch_state_dict

Arrays = dict[str, np.ndarray]


def load(path: str | os.PathLike[str]) -> Arrays:
  """Reads a file of weights.

  Names are those in the file: `features.0.weight` in a PyTorch state dict (also one
  under the key `state_dict`); `block1_conv1/kernel`, layer and variable, in a Keras
  file. Keras layers keep their order; files of Keras 3 keep it within each class only.
  The optimiser's variables are left out.

  Args:
    path: `.npz`, `.safetensors`, `.h5`, `.hdf5` or `.keras` (weights or a model saved
      by Keras), `.pth` or `.pt` (saved by PyTorch, which need not be installed).

  Returns:
    Arrays of numbers with the file's types and axes, possibly read-only; bfloat16 is
    converted to float32.

  Raises:
    ValueError: the file has another format, is damaged, or holds more than weights.
    ModuleNotFoundError: h5py or safetensors is needed and not installed.
    OSError: the file cannot be opened.
  """
  path = pathlib.Path(path)
  kind = _FORMATS.get(path.suffix.lower())
  if kind is None:
    raise ValueError(f"{path} must end in one of {', '.join(_FORMATS)}.")
  with path.open("rb") as file:
    start = file.read(16)
  if not start:
    raise ValueError(f"{path} is empty.")
  if not re.match(kind.start, start, re.DOTALL):
    raise ValueError(f"{path} is not {kind.name}: it starts with {start[:8]!r}.")
  try:
    arrays = kind.read(path)
  except ModuleNotFoundError:
    raise
  except Exception as error:  # libraries raise anything on a damaged file
    reason = textwrap.shorten(str(error), 300) or type(error).__name__
    raise ValueError(f"{path} cannot be read as {kind.name}: {reason}") from error
  if not arrays:
    raise ValueError(f"{path} holds no arrays.")
  return arrays


def _read_npz(path: pathlib.Path) -> Arrays:
  headers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  arrays = {}
  with zipfile.ZipFile(path) as archive:
    _check_members(archive.infolist(), path)
    for name in archive.namelist():
      content = archive.read(name)
      file = io.BytesIO(content)
      shape, fortran, dtype = headers[np.lib.format.read_magic(file)](file)
      if min(shape, default=0) < 0:  # NumPy would infer the size
        raise ValueError(f"{name} has the shape {shape}.")
      _check_numbers(name, dtype)
      array = np.ndarray(
        shape, dtype, content, file.tell(), order="F" if fortran else "C"
      )
      arrays[name.removesuffix(".npy")] = array
  return arrays


def _check_members(members: list[zipfile.ZipInfo], path: pathlib.Path) -> None:
  known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
  if any(member.compress_type not in known for member in members):
    raise ValueError("its compression is not deflate.")
  _check_size(sum(member.file_size for member in members), path)


def _check_size(size: int, path: pathlib.Path) -> None:
  # zlib.net/zlib_tech.html: deflate shrinks data to 1/1032 at most.
  if size > 1032 * path.stat().st_size:
    raise ValueError(f"it claims to hold {size} bytes, more than its size allows.")


def _check_numbers(name: str, dtype: np.dtype) -> None:
  if dtype.kind not in "biuf":
    raise ValueError(f"{name} is not an array of numbers, its type is {dtype}.")


def _read_safetensors(path: pathlib.Path) -> Arrays:
  try:
    import safetensors
  except ImportError as error:
    raise ModuleNotFoundError(
      f"Reading {path} needs safetensors: pip install safetensors"
    ) from error
  with safetensors.safe_open(path, framework="np") as file:
    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  # NumPy has no type for bfloat16 and for floats of 8 bits.
  return {
    name: array.astype(np.float32) if array.dtype.kind == "V" else array
    for name, array in arrays.items()
  }


def _read_keras_model(path: pathlib.Path) -> Arrays:
  """Reads the weights in a model's archive, but not its configuration."""
  with zipfile.ZipFile(path) as archive:
    member = archive.getinfo("model.weights.h5")
    _check_members([member], path)
    return _read_keras(path, io.BytesIO(archive.read(member)))


def _read_keras(path: pathlib.Path, content: io.BytesIO | None = None) -> Arrays:
  try:
    import h5py
  except ImportError as error:
    raise ModuleNotFoundError(f"Reading {path} needs h5py: pip install h5py") from error
  if content is not None:
    _check_heaps(content.getvalue())
  else:
    with (
      path.open("rb") as file,
      mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
      _check_heaps(data)
  with h5py.File(content or path, "r") as file:
    root = _member(file, "model_weights") if "model_weights" in file else file
    listed = "layer_names" in root.attrs
    found = list(_listed_datasets(root) if listed else _numbered_datasets(root))
    for name, dataset in found:
      if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} is not an array.")
      if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} is in another file.")
      _check_numbers(name, dataset.dtype)
    _check_size(sum(dataset.nbytes for _, dataset in found), path)
    arrays = {name: np.asarray(dataset[()]) for name, dataset in found}
  if len(arrays) < len(found):
    raise ValueError("several of its arrays have the same name.")
  return arrays


def _check_heaps(data: bytes | mmap.mmap) -> None:
  """Checks heaps of strings; HDF5 reads some damaged ones in an endless loop.

  A collection has a header of 16 bytes with its size in the last 8, then objects with
  headers of the same form: index (0 = free space), references, size. An object's size
  excludes its header and the padding to 8 bytes; that of free space includes its
  header.
  """
  for start in re.finditer(rb"GCOL\x01\0\0\0", data):
    at = start.start()
    end = at + int.from_bytes(data[at + 8 : at + 16], "little")
    at += 16
    while at + 16 <= min(end, len(data)):
      index = int.from_bytes(data[at : at + 2], "little")
      size = int.from_bytes(data[at + 8 : at + 16], "little")
      step = 16 + -(-size // 8) * 8 if index else size
      if not 16 <= step <= end - at:
        raise ValueError("a heap of strings in it is damaged.")
      at += step


def _listed_datasets(root: Any) -> Iterable[tuple[str, Any]]:
  """Yields the datasets that attributes of a Keras 1 or 2 file list, by layer."""
  for layer in _strings(root, "layer_names"):
    group = _member(root, layer)
    for weight in _strings(group, "weight_names"):
      variable = weight.rpartition("/")[2].partition(":")[0]
      # Keras 1, which wrote VGG's file, has names like block1_conv1_W_1:0.
      if old := re.fullmatch(r".*_([Wb])(_\d+)?", variable):
        variable = {"W": "kernel", "b": "bias"}[old[1]]
      yield f"{layer}/{variable}", _member(group, weight)


def _strings(group: Any, attribute: str) -> list[str]:
  values = group.attrs[attribute]
  return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _member(group: Any, name: str) -> Any:
  """Returns a member of a group, without following links."""
  import h5py

  for part in name.split("/"):
    if group.get(part, getclass=True, getlink=True) is not h5py.HardLink:
      raise ValueError(f"{name} is missing or a link.")
    group = group[part]
  return group


def _numbered_datasets(root: Any) -> Iterable[tuple[str, Any]]:
  """Yields the variables of a Keras 3 `.weights.h5` by their layers' names."""
  layers: dict[str, dict[str, Any]] = {}

  def visit(path, item):  # h5py skips links
    layer, _, number = path.rpartition("/vars/")
    if layer and layer != "optimizer" and hasattr(item, "shape"):
      layers.setdefault(layer, {})[number] = item

  root.visititems(visit)
  # Keras numbers layers of a class: conv2d, conv2d_1, ..., conv2d_10.
  for path, variables in sorted(layers.items(), key=lambda item: _natural(item[0])):
    layer = root[f"{path}/vars"].attrs.get("name", path)
    ranks = [len(variables[number].shape) for number in sorted(variables)]
    # A convolution or a dense layer; other layers' variables keep their numbers.
    plain = ranks[0] > 1 and ranks[1:] in ([], [1])
    names = {"0": "kernel", "1": "bias"} if plain else {}
    for number, dataset in variables.items():
      yield f"{layer}/{names.get(number, number)}", dataset


def _natural(name: str) -> list[tuple[str, int]]:
  """Returns a sort key of a name that puts a_10 after a_2."""
  return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]


class _Format(NamedTuple):
  name: str
  start: bytes  # a regular expression
  read: Callable[[pathlib.Path], Arrays]


_KERAS = _Format("Keras weights in HDF5", rb"\x89HDF\r\n\x1a\n", _read_keras)
_TORCH = _Format("a PyTorch state dict", rb"PK\x03\x04|\x80", torch_state_dict.read)
_FORMATS = {
  ".npz": _Format("an npz archive", rb"PK\x03\x04|PK\x05\x06", _read_npz),
  ".safetensors": _Format("safetensors", rb".{8}\{", _read_safetensors),
  ".h5": _KERAS,
  ".hdf5": _KERAS,
  ".keras": _Format("a Keras model", rb"PK\x03\x04", _read_keras_model),
  ".pth": _TORCH,
  ".pt": _TORCH,
}
