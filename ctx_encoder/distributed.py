"""One batch over all devices and processes: examples split, state copied or split."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

_SMALLEST_SPLIT = 2**14


def data_mesh(count: int | None = None) -> Mesh:
  """Returns the first `count` devices, or all, along one axis, "data"."""
  devices = jax.devices()[:count]
  return jax.make_mesh(
    (len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds a copy of."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Returns the sharding of arrays whose `axis` is split over the devices."""
  return NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data"))


def put(mesh: Mesh, tree: Any, axis: int | None = None) -> Any:
  """Lays arrays of the host on the devices of all processes.

  Args:
    mesh: the devices.
    tree: NumPy arrays. Without an axis every process has the same ones; with one, each
      has its contiguous part along it, in the order of the processes.
    axis: to split them along, None = a copy for every device.
  """
  place = replicated(mesh) if axis is None else split(mesh, axis)
  if jax.process_count() == 1:
    return jax.device_put(tree, place)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(place, np.asarray(x)), tree
  )


def local(mesh: Mesh, tree: Any) -> Any:
  """Returns arrays as this process can use them by itself, whole."""
  if jax.process_count() == 1:
    return tree
  return jax.device_get(jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree))


def sum_over_processes(values: Sequence[float]) -> list[float]:
  """Returns the sums over all processes, in float64."""
  if jax.process_count() == 1:
    return list(values)
  # As two float32 each, since JAX has no more: their sum has 48 bits.
  exact = np.asarray(values, np.float64)
  high = exact.astype(np.float32)
  low = (exact - high).astype(np.float32)
  parts = gather(np.stack([high, low]))
  return parts.astype(np.float64).sum(axis=(0, 1)).tolist()


def gather(x: np.ndarray) -> np.ndarray:
  """Returns `[processes, ...]`, the arrays of all; all must give one of one shape."""
  return np.asarray(multihost_utils.process_allgather(x)).reshape(-1, *np.shape(x))


def any_process(flag: bool) -> bool:
  """Returns whether any process says so; all must ask at the same time."""
  if jax.process_count() == 1:
    return flag
  return bool(gather(np.asarray(flag)).any())


def of_state(mesh: Mesh, state: Any, strategy: str) -> Any:
  """Returns the sharding of every array of a training state.

  Args:
    mesh: the devices.
    state: arrays, or their shapes and types.
    strategy: "replicated": every device has a copy. "sharded": parameters, optimiser
      state and averages are split over the devices along their longest axis that can
      be; each device then keeps and updates its share, and XLA gathers what a layer
      needs when it needs it. Arrays of less than 2^14 values are copied: to gather
      them would take longer than they save.
  """

  def one(leaf) -> NamedSharding:
    axes = [axis for axis, n in enumerate(leaf.shape) if n % mesh.size == 0]
    if strategy == "replicated" or leaf.size < _SMALLEST_SPLIT or not axes:
      return replicated(mesh)
    return split(mesh, max(axes, key=lambda axis: leaf.shape[axis]))

  return jax.tree.map(one, state)


def check_batch_size(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
  """Raises ValueError unless every device gets the same share of every part."""
  shares = mesh.size * accumulate
  if batch_size % shares:
    parts = f" times accumulate ({accumulate})" if accumulate > 1 else ""
    raise ValueError(
      f"batch_size ({batch_size}) must be a multiple of the {mesh.size} devices{parts};"
      f" nearest: {max(1, round(batch_size / shares)) * shares}."
    )
