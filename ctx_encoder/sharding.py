"""One batch over all devices of a process: state copied, examples split."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


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


def check_batch_size(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
  """Raises ValueError unless every device gets the same share of every part."""
  shares = mesh.size * accumulate
  if batch_size % shares:
    parts = f" times accumulate ({accumulate})" if accumulate > 1 else ""
    raise ValueError(
      f"batch_size ({batch_size}) must be a multiple of the {mesh.size} devices{parts};"
      f" nearest: {max(1, round(batch_size / shares)) * shares}."
    )
