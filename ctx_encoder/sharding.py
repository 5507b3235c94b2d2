"""One batch over all devices: examples split, state copied or split too."""

from typing import Any

import jax
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
