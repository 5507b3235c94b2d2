"""Keeps traced functions in a folder, for later processes.

To trace the package's network in Python takes longer than to run it.
"""

import contextlib
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax import export

from ctx_encoder import xla
from ctx_encoder.data import files

_ROOT = Path(__file__).parents[1]


def jit(function: Callable[..., Any], name: str, folder: Path) -> Callable[..., Any]:
  """Returns `jax.jit(function)` that reads the traced function from a folder.

  It writes the file where there is none, one for each shape of the arguments; a file
  that cannot be written or read is left out. Other versions of jax or of this package,
  and other settings of jax, have other files.

  Args:
    function: of trees of arrays; it must depend on nothing else but its name.
    name: begins the names of the files.
    folder: for the files.
  """
  functions: dict[str, Callable[..., Any]] = {}
  surroundings = _surroundings()

  def call(*args):
    shapes = jax.tree.map(lambda x: (x.shape, str(x.dtype)), args)
    digest = hashlib.sha256(f"{shapes} {surroundings}".encode()).hexdigest()
    if digest not in functions:
      path = folder / f"{name}-{digest}.stablehlo"
      traced = _read(path) or _written(path, export.export(jax.jit(function))(*args))
      functions[digest] = jax.jit(traced.call, compiler_options=xla.options())
    return functions[digest](*args)

  return call


def _surroundings() -> str:
  """Returns what a traced function depends on, besides its arguments."""
  sources = hashlib.sha256()
  for path in sorted(_ROOT.rglob("*.py")):
    sources.update(path.read_bytes())
  settings = sorted(jax.config.values.items())
  return f"{jax.__version__} {jax.default_backend()} {settings} {sources.hexdigest()}"


def _read(path: Path) -> export.Exported | None:
  """Returns the function in a file; None if there is none, or the file is damaged."""
  try:
    content = path.read_bytes()
  except OSError:
    return None
  digest, content = content[:32], content[32:]
  undamaged = hashlib.sha256(content).digest() == digest
  return export.deserialize(bytearray(content)) if undamaged else None


def _written(path: Path, traced: export.Exported) -> export.Exported:
  content = bytes(traced.serialize())
  with contextlib.suppress(OSError):  # a full or read-only disk only costs time
    files.write(path, hashlib.sha256(content).digest() + content)
  return traced
