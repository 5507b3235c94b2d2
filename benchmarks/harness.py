"""Shared by the benchmarks: interleaved timing, the machine, tables and JSON."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

from ctx_encoder import xla

xla.use_huge_pages()  # as launch.py does; before anything slow is imported

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from ctx_encoder.models.ops import conv, pool  # noqa: E402

GEMM_SIDE = 3072

Step = Callable[[], Any]  # does its work and waits for it


def parser(description: str | None, *, rounds: int = 5) -> argparse.ArgumentParser:
  """Returns a parser with the common arguments; 0 rounds = without --rounds."""
  made = argparse.ArgumentParser(
    description=description, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  if rounds:
    made.add_argument(
      "--rounds", type=int, default=rounds, help=f"turns each (default: {rounds})"
    )
  made.add_argument("--output", help="JSON file to write the figures to")
  return made


def interleave(steps: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
  """Returns the seconds of each step; they take turns, so noise affects all alike.

  A turn is three times the step, as steps follow each other in training. The first is
  not measured, since it refills caches after the other steps.
  """
  for step in steps.values():
    step()
  seconds: dict[str, list[float]] = {name: [] for name in steps}
  for _ in range(rounds):
    for name, step in steps.items():
      step()
      for _ in range(2):
        start = time.perf_counter()
        step()
        seconds[name].append(time.perf_counter() - start)
  return seconds


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
  """Returns the median of each."""
  return {name: statistics.median(times) for name, times in seconds.items()}


def ratio(seconds: Mapping[str, Sequence[float]], name: str, to: str) -> float:
  """Returns the median over the rounds of one step's time divided by another's."""
  pairs = zip(seconds[name], seconds[to], strict=True)
  return statistics.median(own / other for own, other in pairs)


@contextlib.contextmanager
def stock_layers():
  """Within it, tracing uses `lax`'s convolutions and pooling."""

  def choose(fast, stock):
    del fast
    return stock

  with (
    mock.patch.object(conv, "by_platform", choose),
    mock.patch.object(pool, "by_platform", choose),
  ):
    yield


def gemm() -> Step:
  """Returns a float32 matrix product of 3072 cubed, to compare with."""
  operand = jnp.ones((GEMM_SIDE, GEMM_SIDE))
  product = jax.jit(jnp.matmul, compiler_options=xla.options())
  return lambda: product(operand, operand).block_until_ready()


def gemm_rate(seconds: float) -> float:
  """Returns GFLOP/s."""
  return 2 * GEMM_SIDE**3 / seconds / 1e9


def machine() -> dict[str, Any]:
  """Returns a description of the machine and the versions."""
  cpu = platform.processor() or platform.machine()
  info = pathlib.Path("/proc/cpuinfo")
  if info.exists():
    names = [line for line in info.read_text().splitlines() if "model name" in line]
    cpu = names[0].partition(":")[2].strip() if names else cpu
  versions = {}
  for package in ("jax", "jaxlib", "flax", "torch", "keras", "tensorflow", "numpy"):
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return {
    "device": jax.devices()[0].device_kind,
    "cpu": cpu,
    "cores": os.cpu_count(),
    "python": platform.python_version(),
    "versions": versions,
  }


def print_machine() -> None:
  """Prints one line about the machine, and one about the versions."""
  found = machine()
  print(f"{found['device']}, {found['cpu']}, {found['cores']} cores")
  versions = found["versions"].items()
  print(", ".join(f"{package} {version}" for package, version in versions))


def write(args: argparse.Namespace, figures: Mapping[str, Any]) -> None:
  """Writes figures, arguments and machine to --output, if it is given."""
  if args.output:
    document = {"machine": machine(), "arguments": vars(args), **figures}
    pathlib.Path(args.output).write_text(json.dumps(document, indent=1) + "\n")
