"""What a compiled module moves: its collectives, and the bytes of its kernels."""

import math
import re
from collections.abc import Sequence

_COLLECTIVE = re.compile(
  r"= ((?:[^=]|index=)*?) "
  r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\("
)
_SHAPE = re.compile(r"\b(pred|[fsu]\d+|bf16)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(
  r"^\s+(?:ROOT )?%?([\w.-]+) = ((?:[^=]|index=)*?) ([\w-]+)\((.*)$"
)
_NO_TRAFFIC = {
  *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id"),
  *("call", "while", "async-start", "async-done"),
}


def collectives(text: str, devices: int) -> list[tuple[str, str, int]]:
  """Returns (kind, type, bytes) of every collective in a module.

  Bytes are those of the complete array: a gather's result, a reduce-scatter's operand.

  Args:
    text: the compiled module; asynchronous collectives list operands and results.
    devices: number of chips.
  """
  found = []
  for shapes, kind, start in _COLLECTIVE.findall(text):
    size, types = bytes_of(shapes), _SHAPE.findall(shapes)
    if start and kind in ("all-gather", "reduce-scatter"):
      size = round(size * devices / (devices + 1))
    elif start and kind == "collective-permute":
      size //= 2
    elif kind == "reduce-scatter":
      size *= devices
    found.append((kind, types[0][0] if types else "", size))
  return found


def bytes_of(shapes: str) -> int:
  """Returns the bytes of all arrays in an instruction's type."""
  total = 0
  for dtype, dimensions in _SHAPE.findall(shapes):
    count = math.prod(int(n) for n in dimensions.split(",") if n)
    total += count * max(1, int(re.sub(r"\D", "", dtype) or 8) // 8)
  return total


def traffic(text: str) -> int:
  """Returns the bytes that a module's kernels read and write.

  For compilers that do not report them. Every kernel counts its operands and results
  completely, also where it reads only a slice.
  """
  computations: dict[str, list[Sequence[str]]] = {}
  entry = current = ""
  for row in text.splitlines():
    if header := _COMPUTATION.match(row):
      current = header[2]
      entry = current if header[1] else entry
      computations[current] = []
    elif instruction := _INSTRUCTION.match(row):
      computations[current].append(instruction.group(1, 2, 3, 4))

  def of(computation: str) -> int:
    sizes = {name: bytes_of(shape) for name, shape, _, _ in computations[computation]}
    total = 0
    for name, _, kind, rest in computations[computation]:
      if kind in ("call", "while", "async-start"):
        called = re.findall(r"(?:to_apply|body|calls)=%?([\w.-]+)", rest)
        total += sum(map(of, called))
      elif kind not in _NO_TRAFFIC and not kind.endswith("-done"):
        operands = re.findall(r"%?([\w.-]+)", rest.partition(")")[0])
        total += sizes[name] + sum(sizes.get(operand, 0) for operand in operands)
    return total

  return of(entry)


def by_kind(found: list[tuple[str, str, int]]) -> dict[str, dict[str, int]]:
  """Returns {kind and type: number and bytes}."""
  totals: dict[str, dict[str, int]] = {}
  for kind, dtype, size in found:
    total = totals.setdefault(f"{kind} {dtype}", {"count": 0, "bytes": 0})
    total["count"] += 1
    total["bytes"] += size
  return totals
