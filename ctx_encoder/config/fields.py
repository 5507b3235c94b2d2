"""Configuration fields with type, default, range and help, and sections of them."""

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Field:
  """What a field may hold.

  name: dotted, such as "model.width".
  type: bool, int, float or str.
  low, high: of numbers, inclusive.
  may_change: whether a run may be resumed with another value. Such fields say where
    data and weights lie, how long to train, on what devices, and what is reported;
    they change neither the networks nor the losses nor the order of the batches.
  """

  name: str
  type: type
  default: Any
  help: str
  choices: tuple[str, ...] = ()
  low: float = -math.inf
  high: float = math.inf
  may_change: bool = False

  @property
  def optional(self) -> bool:
    return self.default is None


class Section:
  """A dataclass whose attributes are its fields and nothing else."""

  def __setattr__(self, name: str, value: Any) -> None:
    kinds = _types(type(self))
    if name not in kinds:
      raise AttributeError(unknown(name, kinds))
    if kinds[name] is float and type(value) is int:
      value = float(value)
    object.__setattr__(self, name, value)

  def update(self, values: Mapping[str, Any]) -> None:
    """Sets fields by name; names in sections below this one are dotted.

    Raises:
      AttributeError: there is no such field; the message has the nearest names.
    """
    for name, value in values.items():
      *path, last = name.split(".")
      section = self
      for part in path:
        section = getattr(section, part, None)
        if not isinstance(section, Section):
          raise AttributeError(unknown(name, dict(fields(type(self)))))
      setattr(section, last, value)


def field(default: Any, help: str, **options: Any) -> Any:
  return dataclasses.field(default=default, metadata={"help": help, **options})


def fields(section: type, prefix: str = "") -> Iterator[tuple[str, Field]]:
  """Yields (dotted name, field) of a section and those below it, in their order."""
  types = _types(section)
  for entry in dataclasses.fields(section):
    name = prefix + entry.name
    if entry.metadata:
      yield name, Field(name, types[entry.name], entry.default, **entry.metadata)
    else:
      yield from fields(types[entry.name], f"{name}.")


def unknown(name: str, names: Iterable[str]) -> str:
  """Returns the message for a field that does not exist, with the nearest names."""
  return f"there is no field '{name}'{nearest(name, names)}"


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
  """Returns "; nearest: ..." with the names most like a misspelt one, or ""."""
  near = difflib.get_close_matches(name, list(names), n=count, cutoff=0.5)
  return f"; nearest: {', '.join(near)}" if near else ""


@functools.cache
def _types(section: type) -> dict[str, type]:
  """Returns {field: type}, T for T | None."""
  found = {}
  for entry in dataclasses.fields(section):
    kinds = [k for k in typing.get_args(entry.type) if k is not type(None)]
    found[entry.name] = kinds[0] if kinds else entry.type
  return found
