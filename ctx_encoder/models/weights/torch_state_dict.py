"""State dicts in PyTorch's files, read without PyTorch and without unpickling.

`torch.save` writes a pickle whose tensors refer to storages, and those as they are:
beside the pickle in a zip archive, or behind it in older files (until version 1.5).

A `pickle.Unpickler` that refuses to look up foreign names would run no code of the file
either. But a few bytes make it take all memory (by a large number in its memo, CPython
issue 115952) or overflow the C stack (by the hash of a deeply nested tuple). What a
state dict is pickled with is little, so a small stack machine runs just that.
"""

import io
import math
import pathlib
import pickletools
import struct
import zipfile
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
  "torch DoubleStorage": "<f8",
  "torch FloatStorage": "<f4",
  "torch HalfStorage": "<f2",
  "torch BFloat16Storage": "<u2",  # the upper half of a float32
  "torch LongStorage": "<i8",
  "torch IntStorage": "<i4",
  "torch ShortStorage": "<i2",
  "torch CharStorage": "i1",
  "torch ByteStorage": "u1",
  "torch BoolStorage": "?",
}
_GLOBALS = {
  "collections OrderedDict",
  "torch._utils _rebuild_tensor_v2",
  "torch._utils _rebuild_parameter",
  *_STORAGES,
}


class _Storage(NamedTuple):
  kind: str
  key: str


class _Tensor(NamedTuple):
  storage: _Storage
  offset: int  # counted in elements, as are the strides
  size: tuple[int, ...]
  stride: tuple[int, ...]


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the tensors of a state dict, or of one that lies under `state_dict`.

  Args:
    path: a file of `torch.save`.

  Returns:
    Read-only arrays of the tensors' types, by name; bfloat16 as float32. What a state
    dict holds besides tensors is left out.

  Raises:
    ValueError: it is damaged, or there is more in it than a state dict. Of a damaged
      file also other exceptions, of the zip archive or of the stack machine.
  """
  with path.open("rb") as file:
    zipped = file.read(2) == b"PK"
  return _read_zip(path) if zipped else _read_legacy(path.read_bytes())


def _read_zip(path: pathlib.Path) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(path) as archive:
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
      raise ValueError("it is compressed, which PyTorch's files are not.")
    if sum(member.file_size for member in members) > path.stat().st_size:
      raise ValueError("its members claim to be larger than the file.")
    names = archive.namelist()
    pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
      raise ValueError(f"it has {len(pickles)} members data.pkl, not one.")
    folder = pickles[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in names and archive.read(order) != b"little":
      raise ValueError("it is of a big-endian machine.")
    tensors = _tensors(_unpickle(io.BytesIO(archive.read(pickles[0]))))
    keys = {tensor.storage.key for tensor in tensors.values()}
    contents = {key: archive.read(f"{folder}data/{key}") for key in keys}
  return _arrays(tensors, contents)


def _read_legacy(content: bytes) -> dict[str, np.ndarray]:
  """Reads five pickles and the storages, each behind its number of elements."""
  file = io.BytesIO(content)
  if _unpickle(file) != _MAGIC:
    raise ValueError("it is a pickle, but not of torch.save.")
  if _unpickle(file) != 1001:
    raise ValueError("it is of another protocol than 1001, the only one known.")
  if not _unpickle(file)["little_endian"]:
    raise ValueError("it is of a big-endian machine.")
  kinds: dict[str, str] = {}
  tensors = _tensors(_unpickle(file, kinds))
  contents = {}
  for key in _unpickle(file):
    if not isinstance(key, str) or key not in kinds:
      raise ValueError("it has a storage that no tensor refers to.")
    (count,) = struct.unpack("<q", file.read(8))
    size = count * np.dtype(_STORAGES[kinds[key]]).itemsize
    if not 0 <= size <= len(content) - file.tell():
      raise ValueError(f"storage {key} is cut off.")
    contents[key] = file.read(size)
  return _arrays(tensors, contents)


def _tensors(saved: Any) -> dict[str, _Tensor]:
  if isinstance(saved, dict):
    saved = saved.get("state_dict", saved)
  if not isinstance(saved, dict):
    raise ValueError("it holds no state dict; save model.state_dict().")
  return {str(name): t for name, t in saved.items() if isinstance(t, _Tensor)}


def _arrays(
  tensors: dict[str, _Tensor], contents: dict[str, bytes]
) -> dict[str, np.ndarray]:
  """Returns views of the storages, checked to end where these do."""
  arrays = {}
  floats: dict[str, bytes] = {}  # storages of bfloat16
  for name, (storage, offset, size, stride) in tensors.items():
    dtype, content = np.dtype(_STORAGES[storage.kind]), contents.get(storage.key, b"")
    elements = len(content) // dtype.itemsize
    _check_view(name, offset, size, stride, elements)
    if storage.kind == "torch BFloat16Storage":
      if storage.key not in floats:
        halves = np.ndarray((elements,), dtype, content)
        floats[storage.key] = (halves.astype("<u4") << 16).tobytes()
      dtype, content = np.dtype("<f4"), floats[storage.key]
    if 0 in size:
      arrays[name] = np.empty(size, dtype)
      continue
    strides = [step * dtype.itemsize for step in stride]
    arrays[name] = np.ndarray(size, dtype, content, offset * dtype.itemsize, strides)
  return arrays


def _check_view(name: str, offset: Any, size: Any, stride: Any, elements: int) -> None:
  numbers = (offset, *size, *stride)
  if not all(type(number) is int and number >= 0 for number in numbers):
    raise ValueError(f"{name} has a size or strides that are not whole numbers.")
  if not len(size) == len(stride) <= 32:
    raise ValueError(f"{name} has {len(size)} axes and {len(stride)} strides.")
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if 0 not in size and max(last + 1, math.prod(size)) > elements:
    raise ValueError(f"{name} reaches beyond its storage of {elements} elements.")


def _unpickle(file: io.BytesIO, kinds: dict[str, str] | None = None) -> Any:
  """Returns what a pickle holds, as far as a state dict needs it.

  Nothing is copied that the file does not hold, and keys are names or numbers.

  Args:
    file: at the start of the pickle; left behind its end.
    kinds: gains the class of every storage referred to, by its key.
  """
  kinds = {} if kinds is None else kinds
  stack: list[Any] = []
  marks: list[int] = []
  memo: dict[Any, Any] = {}

  def since_mark() -> list[Any]:
    start = marks.pop()
    items = stack[start:]
    del stack[start:]
    return items

  for opcode, argument, _ in pickletools.genops(file):
    match opcode.name:
      case "PROTO" | "FRAME" | "STOP":
        pass
      case "NONE" | "NEWTRUE" | "NEWFALSE":
        stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
      case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
        stack.append(argument)
      case "BINSTRING" | "SHORT_BINSTRING" | "BINUNICODE" | "SHORT_BINUNICODE":
        stack.append(argument)
      case "EMPTY_DICT":
        stack.append({})
      case "EMPTY_LIST":
        stack.append([])
      case "EMPTY_TUPLE":
        stack.append(())
      case "MARK":
        marks.append(len(stack))
      case "TUPLE":
        stack.append(tuple(since_mark()))
      case "TUPLE1" | "TUPLE2" | "TUPLE3":
        count = int(opcode.name[-1])
        stack[-count:] = [tuple(stack[-count:])]
      case "APPEND":
        item = stack.pop()
        stack[-1].append(item)
      case "APPENDS":
        items = since_mark()
        stack[-1].extend(items)
      case "SETITEM":
        value, key = stack.pop(), stack.pop()
        _set_items(stack[-1], [(key, value)])
      case "SETITEMS":
        items = since_mark()
        _set_items(stack[-1], zip(items[::2], items[1::2], strict=True))
      case "BINPUT" | "LONG_BINPUT":
        memo[argument] = stack[-1]
      case "MEMOIZE":
        memo[len(memo)] = stack[-1]
      case "BINGET" | "LONG_BINGET":
        stack.append(memo[argument])
      case "GLOBAL":
        stack.append(_known(str(argument)))
      case "STACK_GLOBAL":
        stack[-2:] = [_known(" ".join(stack[-2:]))]
      case "BINPERSID":
        storage = _storage(stack.pop())
        kinds[storage.key] = storage.kind
        stack.append(storage)
      case "REDUCE":
        stack[-2:] = [_call(*stack[-2:])]
      case "BUILD":  # the attributes of an object, as the versions of modules are
        stack.pop()
      case name:
        raise ValueError(f"a state dict has no pickle opcode {name}.")
  (saved,) = stack
  return saved


def _set_items(target: dict[Any, Any], items: Iterable[tuple[Any, Any]]) -> None:
  for key, value in items:
    if not isinstance(key, str | int):
      raise ValueError(f"a state dict has no keys of type {type(key).__name__}.")
    target[key] = value


def _known(name: str) -> str:
  if name not in _GLOBALS:
    raise ValueError(
      f"it asks for {name.replace(' ', '.')}, of which a state dict has no need;"
      " it was not run. Save model.state_dict() alone."
    )
  return name


def _storage(reference: Any) -> _Storage:
  match reference:
    case ("storage", str(kind), str(key), _, _) if kind in _STORAGES:
      return _Storage(kind, key)
    case ("storage", str(kind), str(key), _, _, None) if kind in _STORAGES:
      return _Storage(kind, key)
  raise ValueError("it has a storage of a kind that is not read here.")


def _call(function: Any, arguments: Any) -> Any:
  match function, arguments:
    case "collections OrderedDict", ():
      return {}
    case "collections OrderedDict", (list(pairs),):  # by Python 2
      ordered: dict[Any, Any] = {}
      _set_items(ordered, pairs)
      pairs.clear()  # so that no list is copied more than once
      return ordered
    case "torch._utils _rebuild_tensor_v2", (
      _Storage() as storage,
      offset,
      tuple(size),
      tuple(stride),
      *_,
    ):
      return _Tensor(storage, offset, size, stride)
    case "torch._utils _rebuild_parameter", (_Tensor() as tensor, *_):
      return tensor
  raise ValueError("it calls something otherwise than a state dict does.")
