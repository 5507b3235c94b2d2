"""State dicts in PyTorch files, read without PyTorch and without running their code.

`torch.save` writes a pickle whose tensors refer to storages. These are members of the
same zip archive, or follow the pickle in files of PyTorch 1.5 and older.

The pickle runs on Python's own stack machine, limited to the opcodes, classes and keys
that a state dict has. This is `pickle._Unpickler`, written in Python: a few bytes make
the one written in C allocate all memory (by a large number in its memo, CPython issue
115952).
"""

import io
import math
import pathlib
import pickle
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_TYPES = {"Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4"}
_TYPES |= {"Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?"}
_TYPES |= {"BFloat16": "<u2"}  # the upper half of a float32
_OPCODES = """
  PROTO FRAME STOP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINSTRING
  SHORT_BINSTRING BINUNICODE SHORT_BINUNICODE EMPTY_LIST EMPTY_TUPLE MARK TUPLE TUPLE1
  TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS BINPUT LONG_BINPUT MEMOIZE BINGET
  LONG_BINGET GLOBAL STACK_GLOBAL BINPERSID REDUCE
"""


class _Key(str):
  """Refers to a storage."""


class _Tensor(NamedTuple):
  key: _Key
  offset: int  # in elements, as the strides
  size: tuple[int, ...]
  stride: tuple[int, ...]


class _Dict(dict):
  """Keys are names or numbers: hashing deeply nested tuples overflows C's stack."""

  def __init__(self, pairs=()):
    super().__init__()
    for key, value in pairs:
      self[key] = value
    if pairs:
      pairs.clear()  # else a short pickle could copy a long list many times

  def __setitem__(self, key, value):
    if not isinstance(key, str | int):
      raise ValueError(f"a state dict has no keys of type {type(key).__name__}.")
    super().__setitem__(key, value)


def _tensor(key, offset, size, stride, *_):
  if not (isinstance(key, _Key) and type(size) is type(stride) is tuple):
    raise ValueError("it has a tensor that is no view of a storage.")
  return _Tensor(key, offset, size, stride)


_CLASSES = {f"torch.{kind}Storage": kind for kind in _TYPES} | {
  "collections.OrderedDict": _Dict,
  "torch._utils._rebuild_tensor_v2": _tensor,
  "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
}


class _Opcodes(dict):
  def __missing__(self, code):
    raise ValueError(f"it has the pickle opcode {bytes([code])}, unlike a state dict.")


class _Unpickler(pickle._Unpickler):
  dispatch = _Opcodes(
    (code, pickle._Unpickler.dispatch[code])
    for code in (getattr(pickle, name)[0] for name in _OPCODES.split())
  )
  dispatch[pickle.EMPTY_DICT[0]] = lambda self: self.stack.append(_Dict())
  # Would set attributes of an object, such as the versions of modules.
  dispatch[pickle.BUILD[0]] = lambda self: self.stack.pop()

  def __init__(self, file):
    super().__init__(file, encoding="latin1")
    self.kinds: dict[str, str] = {}  # types of the storages, by key

  def find_class(self, module, name):
    if f"{module}.{name}" not in _CLASSES:
      raise ValueError(
        f"it asks for {module}.{name}, which no state dict needs; it was not run. Save"
        " only model.state_dict()."
      )
    return _CLASSES[f"{module}.{name}"]

  def persistent_load(self, pid):
    match pid:
      case ("storage", str(kind), str(key), _, _, *_) if kind in _TYPES:
        if self.kinds.setdefault(key, kind) == kind:
          return _Key(key)
    raise ValueError("it has a storage of an unknown type, or of two types.")


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the tensors of a state dict, or of one under the key `state_dict`.

  Args:
    path: a file of `torch.save`.

  Returns:
    Read-only arrays of the tensors' types, by name; bfloat16 as float32. Everything
    that is not a tensor is left out.

  Raises:
    ValueError: it holds more than a state dict, or is damaged. Damaged files also raise
      other exceptions, from the zip archive or the stack machine.
  """
  with path.open("rb") as file:
    zipped = file.read(2) == b"PK"
  saved, storages = _read_zip(path) if zipped else _read_legacy(path.read_bytes())
  if isinstance(saved, dict):
    saved = saved.get("state_dict", saved)
  if not isinstance(saved, dict):
    raise ValueError("it holds no state dict; save model.state_dict().")
  return {
    str(name): _view(str(name), storages[tensor.key], *tensor[1:])
    for name, tensor in saved.items()
    if isinstance(tensor, _Tensor)
  }


def _storage(kind: str, content: bytes) -> np.ndarray:
  flat = np.frombuffer(content, _TYPES[kind])
  return (flat.astype("<u4") << 16).view("<f4") if kind == "BFloat16" else flat


def _read_zip(path: pathlib.Path) -> tuple[Any, dict[str, np.ndarray]]:
  """Returns the unpickled object and the storages by key."""
  with zipfile.ZipFile(path) as archive:
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
      raise ValueError("it is compressed, unlike files of PyTorch.")
    if sum(member.file_size for member in members) > path.stat().st_size:
      raise ValueError("its members claim to be larger than the file.")
    names = archive.namelist()
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
      raise ValueError(f"it has {len(pickles)} members data.pkl, not one.")
    folder = pickles[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in names and archive.read(order) != b"little":
      raise ValueError("it comes from a big-endian machine.")
    unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])))
    saved = unpickler.load()
    return saved, {
      key: _storage(kind, archive.read(f"{folder}data/{key}"))
      for key, kind in unpickler.kinds.items()
    }


def _read_legacy(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
  """Reads five pickles and the storages, each after its number of elements."""
  file = io.BytesIO(content)
  if _Unpickler(file).load() != _MAGIC:
    raise ValueError("it is a pickle, but not one of torch.save.")
  if _Unpickler(file).load() != 1001:
    raise ValueError("its protocol is not 1001, the only known one.")
  if not _Unpickler(file).load()["little_endian"]:
    raise ValueError("it comes from a big-endian machine.")
  unpickler = _Unpickler(file)
  saved, storages = unpickler.load(), {}
  for key in _Unpickler(file).load():
    if not isinstance(key, str) or key not in unpickler.kinds:
      raise ValueError("it has a storage that no tensor refers to.")
    kind, (count,) = unpickler.kinds[key], struct.unpack("<q", file.read(8))
    size = count * np.dtype(_TYPES[kind]).itemsize
    if not 0 <= size <= len(content) - file.tell():
      raise ValueError(f"storage {key} is truncated.")
    storages[key] = _storage(kind, file.read(size))
  return saved, storages


def _view(name: str, flat: np.ndarray, offset, size, stride) -> np.ndarray:
  """Returns a read-only view of a storage, checked to end within it."""
  if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
    raise ValueError(f"{name} has a size or strides that are not whole numbers.")
  if not len(size) == len(stride) <= 32:
    raise ValueError(f"{name} has {len(size)} axes and {len(stride)} strides.")
  if 0 in size:
    return np.empty(size, flat.dtype)
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if max(last + 1, math.prod(size)) > len(flat):
    raise ValueError(f"{name} reaches beyond its storage of {len(flat)} elements.")
  steps = [step * flat.itemsize for step in stride]
  as_strided = np.lib.stride_tricks.as_strided
  return as_strided(flat[offset:], size, steps, writeable=False)
