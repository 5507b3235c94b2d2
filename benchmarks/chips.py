"""Accelerators to compile for without having one, with their published peaks.

A TPU's compiler is in libtpu and knows its topologies by name. The GPU's is in JAX's
CUDA plugin and gets the card's numbers as text: `Gpu`.

Sources of the peaks: Cloud TPU documentation, "TPU v5e" and "TPU v6e"; NVIDIA's data
sheets of H100 SXM and A100 80GB SXM; dense rates. Links are bytes a second in one
direction. float32 products run as TensorFloat-32 on GPUs and, at JAX's default
precision, as bfloat16 on TPUs.
"""

import dataclasses
import os

# Before JAX starts: no metadata server is asked, and two processes may compile at once.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

_SLICES = {4: "2x2", 8: "2x4", 16: "4x4", 64: "8x8", 256: "16x16"}


@dataclasses.dataclass(frozen=True)
class Gpu:
  """What the compiler asks of a card.

  version: compute capability. cores: streaming multiprocessors; lanes: float32 units
  of each; shared: bytes of shared memory of each, and of a block at most; cache: bytes
  of L2; clock: GHz.
  """

  name: str
  version: tuple[int, int]
  cores: int
  lanes: int
  shared: tuple[int, int]
  cache: int
  clock: float

  def text(self, memory: int, bandwidth: float) -> str:
    """Returns XLA's GpuTargetConfigProto as text."""
    numbers = {
      "threads_per_block_limit": 1024,
      "threads_per_warp": 32,
      "threads_per_core_limit": 2048,
      "shared_memory_per_block": 49152,
      "shared_memory_per_core": self.shared[0],
      "shared_memory_per_block_optin": self.shared[1],
      "core_count": self.cores,
      "fpus_per_core": self.lanes,
      "block_dim_limit_x": 2**31 - 1,
      "block_dim_limit_y": 65535,
      "block_dim_limit_z": 65535,
      "registers_per_core_limit": 65536,
      "registers_per_block_limit": 65536,
      "l2_cache_size": self.cache,
      "memory_bandwidth": round(bandwidth),
      "device_memory_size": memory,
      "clock_rate_ghz": self.clock,
    }
    major, minor = self.version
    lines = [f"  {name}: {value}" for name, value in numbers.items()]
    lines.append(f"  cuda_compute_capability {{ major: {major} minor: {minor} }}")
    return "\n".join(
      [
        "gpu_device_info {",
        *lines,
        "}",
        'platform_name: "CUDA"',
        "dnn_version_info { major: 9 minor: 10 patch: 0 }",
        "runtime_version { major: 12 minor: 9 patch: 0 }",
        f'device_description_str: "{self.name}"',
      ]
    )


@dataclasses.dataclass(frozen=True)
class Chip:
  """A chip: bytes of memory, bytes/s to it and to other chips, FLOP/s by type."""

  memory: int
  bandwidth: float
  link: float
  flops: dict[str, float]
  gpu: Gpu | None = None


CHIPS = {
  "v5e": Chip(16 * 2**30, 819e9, 200e9, {"bfloat16": 197e12, "float32": 197e12}),
  "v6e": Chip(32 * 2**30, 1600e9, 400e9, {"bfloat16": 918e12, "float32": 918e12}),
  "h100": Chip(
    80 * 2**30,
    3352e9,
    450e9,
    {"bfloat16": 989e12, "float32": 495e12},
    Gpu("NVIDIA H100 SXM", (9, 0), 132, 128, (233472, 232448), 50 * 2**20, 1.98),
  ),
  "a100": Chip(
    80 * 2**30,
    2039e9,
    300e9,
    {"bfloat16": 312e12, "float32": 156e12},
    Gpu("NVIDIA A100 SXM", (8, 0), 108, 64, (167936, 166912), 40 * 2**20, 1.41),
  ),
}


def mesh(chip: str, count: int) -> Mesh:
  """Returns a mesh of described devices, for which programs can only be compiled.

  Raises:
    RuntimeError: the compiler is not installed, with the command that does.
    KeyError: no topology of so many chips is known.
  """
  known = CHIPS[chip]
  try:
    if known.gpu:
      topology = topologies.get_topology_desc(
        platform="cuda",
        target_config=known.gpu.text(known.memory, known.bandwidth),
        topology=f"1x1x{count}",
      )
    elif count == 1:
      topology = topologies.get_topology_desc(
        platform="tpu", topology_name=f"{chip}:1x1", chips_per_host_bounds=(1, 1, 1)
      )
    else:
      topology = topologies.get_topology_desc(
        platform="tpu", topology_name=f"{chip}:{_SLICES[count]}"
      )
  except (RuntimeError, FileNotFoundError, ValueError) as error:
    extra = "aot-cuda" if known.gpu else "aot-tpu"
    raise RuntimeError(
      f"The compiler for {chip} does not start ({error}):"
      f" pip install -e '.[{extra}]' with the jax that it names."
    ) from error
  devices = np.array(topology.devices)
  return Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
