"""One batch over all devices of a process: state copied, examples split."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh() -> Mesh:
  """Returns all devices along one axis, "data"."""
  return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds a copy of."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh, axis: int = 0) -> NamedSharding:
  """Returns the sharding of arrays whose `axis` is split over the devices."""
  return NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data"))


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
  """Raises ValueError unless every device gets the same share."""
  if batch_size % mesh.size:
    nearest = max(1, round(batch_size / mesh.size)) * mesh.size
    raise ValueError(
      f"batch_size ({batch_size}) must be a multiple of the {mesh.size} devices;"
      f" nearest: {nearest}."
    )
