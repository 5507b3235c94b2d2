"""The communication of devices in a training step, and when it is the limit.

  python benchmarks/communication.py --generator photos --devices 8

The step is compiled for so many devices, simulated on the CPU, and the collectives are
read from the compiled module. A step of n devices is modelled as the longer of

  compute   b * flops / rate                b images a device
  network   2 * bytes * (n - 1) / n / bandwidth + collectives * latency * log2(n)

since a ring passes every byte twice, except each device's own share. --rate,
--bandwidth and --latency describe a device and its link.
"""

import math
import os
import re
import sys

if __name__ == "__main__" and "XLA_FLAGS" not in os.environ:
  count = sys.argv[sys.argv.index("--devices") + 1] if "--devices" in sys.argv else "8"
  os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
  os.environ["JAX_PLATFORMS"] = "cpu"

import harness
import jax
import numpy as np
import train_step

from ctx_encoder import distributed
from ctx_encoder.training import assembly
from ctx_encoder.training.setup import Run
from ctx_encoder.training.step import make_train_step

_COLLECTIVE = re.compile(
  r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
  r"(?:-start)?\("
)
_SHAPE = re.compile(r"(f32|bf16|s32|u32|pred|f16)\[([\d,]*)\]")
_BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}
_COUNTS = (8, 64, 512, 4096)


def main() -> None:
  parser = harness.parser(__doc__, rounds=0)
  train_step.add_network_arguments(parser)
  parser.add_argument("--devices", type=int, default=8)
  parser.add_argument(
    "--sharding", choices=("replicated", "sharded"), default="replicated"
  )
  parser.add_argument(
    "--rate", type=float, default=200, help="TFLOP/s a device reaches (default: 200)"
  )
  parser.add_argument(
    "--bandwidth", type=float, default=50, help="GB/s a device sends (default: 50)"
  )
  parser.add_argument(
    "--latency", type=float, default=10, help="us a hop takes (default: 10)"
  )
  args = parser.parse_args()

  run = assembly.run(train_step.network_settings(args))
  with harness.stock_layers():  # as on accelerators
    found = collectives(compiled_text(run, args))
  flops = train_step.useful_flops(run, args.batch_size) / args.batch_size
  total = sum(size for _, size in found)
  print(
    f"{args.generator}, {args.image_size}x{args.image_size}, {args.devices} devices"
  )
  for kind in sorted({kind for kind, _ in found}):
    sizes = [size for name, size in found if name == kind]
    print(f"{kind:20} {len(sizes):4} of {sum(sizes) / 1e6:8.2f} MB in all")
  print(
    f"{flops / 1e9:.1f} GFLOP an image; the limit is the network below so many images"
  )
  print(f"{'devices':>8} {'network, ms a step':>19} {'images a device':>16}")
  rows = []
  for n in _COUNTS:
    seconds = 2 * total * (n - 1) / n / (args.bandwidth * 1e9)
    seconds += len(found) * args.latency * 1e-6 * math.log2(n)
    images = seconds * args.rate * 1e12 / flops
    rows.append({"devices": n, "seconds": seconds, "images": images})
    print(f"{n:8} {1e3 * seconds:19.2f} {images:16.0f}")
  harness.write(args, {"collectives": found, "flops": flops, "rows": rows})


def compiled_text(run: Run, args) -> str:
  """Returns the compiled module of the step for the devices."""
  mesh = distributed.data_mesh(args.devices)
  optimizers = run.optimizers(run.generator, train_step.TOTAL_STEPS)
  state = jax.eval_shape(lambda: run.init(jax.random.key(0), optimizers))
  places = distributed.of_state(mesh, state, args.sharding)
  shape = (args.batch_size, args.image_size, args.image_size, 3)
  batch = {
    "image": jax.ShapeDtypeStruct(shape, np.uint8, sharding=distributed.split(mesh)),
    "index": jax.ShapeDtypeStruct(
      shape[:1], np.int32, sharding=distributed.split(mesh)
    ),
  }
  key = jax.eval_shape(lambda: jax.random.key(0))
  key = jax.ShapeDtypeStruct(
    key.shape, key.dtype, sharding=distributed.replicated(mesh)
  )
  step = jax.jit(
    make_train_step(run, optimizers),
    in_shardings=(places, None, None),
    out_shardings=(places, None),
  )
  text = step.lower(state, batch, key).compile().as_text()
  if text is None:
    raise SystemExit("this backend does not show the compiled step")
  return text


def collectives(text: str) -> list[tuple[str, int]]:
  """Returns (kind, bytes of its result) of every collective in a compiled module."""
  found = []
  for shapes, kind in _COLLECTIVE.findall(text):
    size = sum(
      _BYTES[kind] * math.prod(int(n) for n in dimensions.split(",") if n)
      for kind, dimensions in _SHAPE.findall(shapes)
    )
    found.append((kind, size))
  return found


if __name__ == "__main__":
  main()
