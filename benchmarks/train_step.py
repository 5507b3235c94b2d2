"""Seconds a training step takes, with the convolutions here and with the stock ones.

  python benchmarks/train_step.py --generator photos --batch_size 16

The two take turns in one process; the table gives medians and their ratio, the rate of
the largest matrix product is measured between them. Run it on a quiet machine.
"""

import argparse
import json
import platform
import statistics
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import build, config, conv

GEMM_SIDE = 3072


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--generator", choices=("photos", "monet"), default="photos")
  parser.add_argument("--batch_size", type=int, default=16)
  parser.add_argument("--image_size", type=int, default=128)
  parser.add_argument("--width", type=float, default=1.0)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--output", help="JSON file to write the figures to")
  args = parser.parse_args()

  steps = {"ours": _prepare(args)}
  with mock.patch.object(conv, "_by_platform", lambda fast, stock: stock):
    steps["stock"] = _prepare(args)
  seconds = {name: [] for name in (*steps, "gemm")}
  for _ in range(args.rounds):
    for name, step in (*steps.items(), ("gemm", _gemm)):
      start = time.perf_counter()
      step()
      seconds[name].append(time.perf_counter() - start)

  medians = {name: statistics.median(times) for name, times in seconds.items()}
  gemm_rate = 2 * GEMM_SIDE**3 / medians["gemm"] / 1e9
  print(
    f"{args.generator}, {args.image_size}x{args.image_size}, batch {args.batch_size},"
    f" width {args.width:g}, on {jax.devices()[0].device_kind}"
    f" ({platform.processor() or platform.machine()}), jax {jax.__version__}"
  )
  for name in steps:
    print(
      f"{name:6} {medians[name]:8.3f} s a step"
      f" {args.batch_size / medians[name]:8.1f} images a second"
    )
  print(f"stock / ours: {medians['stock'] / medians['ours']:.2f}")
  print(f"matrix product of {GEMM_SIDE} cubed: {gemm_rate:.0f} GFLOP/s")
  if args.output:
    figures = vars(args) | {"seconds": seconds, "gflops_gemm": gemm_rate}
    with open(args.output, "w") as file:
      json.dump(figures, file, indent=1)


def _prepare(args):
  """Returns a function that makes one step and waits for it; compiled and warm."""
  settings = config.default()
  settings.model.generator = args.generator
  settings.model.width = settings.discriminator.width = args.width
  settings.data.image_size = args.image_size
  run = build.run(settings, total_steps=1000)
  state = jax.jit(lambda: run.init(0, average=False))()
  rng = np.random.default_rng(0)
  shape = (args.batch_size, args.image_size, args.image_size, 3)
  batch = {
    "image": rng.integers(0, 256, shape, dtype=np.uint8),
    "index": np.arange(args.batch_size, dtype=np.int32),
  }
  key = jax.random.key(0)
  compiled = (
    jax.jit(run.train_step, donate_argnums=0).lower(state, batch, key).compile()
  )

  def step():
    nonlocal state
    state, measured = compiled(state, batch, key)
    jax.block_until_ready((state, measured))

  step()
  return step


@jax.jit
def _product(a):
  return a @ a


def _gemm():
  _product(jnp.ones((GEMM_SIDE, GEMM_SIDE))).block_until_ready()


if __name__ == "__main__":
  main()
