"""The device mesh: placing arrays on it, and gathering values of all processes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_SMALLEST_SPLIT = 2**14


def data_mesh(count: int | None = None) -> Mesh:
  """Returns a mesh of the first `count` devices, or all, with one axis, "data"."""
  devices = jax.devices()[:count]
  return jax.make_mesh(
    (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
  )


def platform(mesh: Mesh) -> str:
  """Returns the platform of a mesh's devices: "cpu", "gpu" or "tpu"."""
  return mesh.devices.flat[0].platform


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of arrays that every device holds a copy of."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Returns the sharding of arrays whose `axis` is split over the devices."""
  return NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data"))


def put(mesh: Mesh, tree: Any, axis: int | None = None) -> Any:
  """Places host arrays on the devices of all processes.

  Args:
    mesh: the devices.
    tree: NumPy arrays. Without an axis, the same on every process; with one, each
      process passes its contiguous part along it, in the order of the processes.
    axis: the axis to split over the devices; None = a copy on every device.
  """
  place = replicated(mesh) if axis is None else split(mesh, axis)
  if jax.process_count() == 1:
    return jax.device_put(tree, place)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(place, np.asarray(x)), tree
  )


def local(mesh: Mesh, tree: Any) -> Any:
  """Gathers arrays that are split over processes to host-local arrays."""
  if jax.process_count() == 1:
    return tree
  return jax.device_get(_replicate(mesh)(tree))


@functools.cache
def _replicate(mesh: Mesh) -> Callable[[Any], Any]:
  """Returns a jitted function that replicates its argument, one for each mesh."""
  return jax.jit(lambda x: x, out_shardings=replicated(mesh))


def sum_over_processes(values: Sequence[float]) -> list[float]:
  """Returns the sums over all processes, computed in float64."""
  if jax.process_count() == 1:
    return list(values)
  # JAX has no float64 here: two float32 for each value keep 48 bits.
  exact = np.asarray(values, np.float64)
  high = exact.astype(np.float32)
  low = (exact - high).astype(np.float32)
  parts = gather(np.stack([high, low]))
  return parts.astype(np.float64).sum(axis=(0, 1)).tolist()


def gather(x: np.ndarray) -> np.ndarray:
  """Stacks one array of each process, all of the same shape: `[processes, ...]`."""
  return np.asarray(multihost_utils.process_allgather(x)).reshape(-1, *np.shape(x))


def any_process(flag: bool) -> bool:
  """Returns whether the flag is set on any process; all processes must call this."""
  if jax.process_count() == 1:
    return flag
  return bool(gather(np.asarray(flag)).any())


def of_state(mesh: Mesh, state: Any, strategy: str) -> Any:
  """Returns the sharding of every array of a training state.

  Args:
    mesh: the devices.
    state: arrays, or their shapes and types.
    strategy: "replicated" (every device holds a copy) or "sharded" (each array is split
      over the devices along its longest axis that their number divides; a step gathers
      the parameters first). Arrays of less than 2^14 values are always replicated:
      gathering them costs more time than splitting saves.
  """

  def one(leaf) -> NamedSharding:
    axes = [axis for axis, n in enumerate(leaf.shape) if n % mesh.size == 0]
    if strategy == "replicated" or leaf.size < _SMALLEST_SPLIT or not axes:
      return replicated(mesh)
    return split(mesh, max(axes, key=lambda axis: leaf.shape[axis]))

  return jax.tree.map(one, state)


def check_batch_size(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
  """Raises ValueError unless devices times `accumulate` divides the batch size."""
  shares = mesh.size * accumulate
  if batch_size % shares:
    parts = f" times accumulate ({accumulate})" if accumulate > 1 else ""
    raise ValueError(
      f"batch_size ({batch_size}) must be a multiple of the {mesh.size} devices{parts};"
      f" nearest: {max(1, round(batch_size / shares)) * shares}."
    )
