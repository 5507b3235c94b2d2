"""Are the losses of our step those of stock Flax layers, step by step?

  python benchmarks/parity.py --generator photos --batch_size 16

Both start from the same state and see the same batches; prints how far the losses and
the hole's PSNR are apart, relative to their size, and exits with 1 above --limit.
"""

import sys
from unittest import mock

import harness
import jax
import numpy as np

from ctx_encoder import build, compiler, config, conv


def main() -> None:
  parser = harness.parser(__doc__)
  parser.add_argument("--generator", choices=("photos", "monet"), default="photos")
  parser.add_argument("--batch_size", type=int, default=16)
  parser.add_argument("--image_size", type=int, default=128)
  parser.add_argument("--width", type=float, default=1.0)
  parser.add_argument("--steps", type=int, default=20)
  parser.add_argument("--limit", type=float, default=1e-4)
  args = parser.parse_args()

  ours = losses(args)
  with mock.patch.object(conv, "_by_platform", lambda fast, stock: stock):
    stock = losses(args)
  apart = {
    name: np.abs(np.array(ours[name]) / np.array(stock[name]) - 1) for name in stock
  }
  harness.print_machine()
  print(
    f"{args.generator}, {args.image_size}x{args.image_size}, batch {args.batch_size},"
    f" width {args.width:g}, {args.steps} steps"
  )
  print(f"{'':22} {'first':>10} {'last':>10} {'relative difference, at most':>30}")
  for name, values in stock.items():
    print(
      f"{name:22} {values[0]:10.6f} {values[-1]:10.6f} {apart[name].max():30.1e}"
      f" at step {apart[name].argmax() + 1}"
    )
  harness.write(args, {"ours": ours, "stock": stock})
  if max(values.max() for values in apart.values()) > args.limit:
    sys.exit(f"Above {args.limit:g}.")


def losses(args) -> dict[str, list[float]]:
  """Returns {loss: its value at each step}."""
  settings = config.default()
  settings.model.generator = args.generator
  settings.model.width = settings.discriminator.width = args.width
  settings.data.image_size = args.image_size
  run = build.run(settings, total_steps=1000)
  state = jax.jit(lambda: run.init(0, average=False))()
  options = compiler.options()
  step = jax.jit(run.train_step, donate_argnums=0, compiler_options=options)
  key, rng = jax.random.key(0), np.random.default_rng(0)
  # Smooth pictures, as photographs are: means of noise over squares of 8 pixels.
  coarse = (args.image_size // 8, args.image_size // 8, 3)
  found: dict[str, list[float]] = {}
  for _ in range(args.steps):
    image = rng.integers(0, 256, (args.batch_size, *coarse), dtype=np.uint8)
    image = image.repeat(8, axis=1).repeat(8, axis=2)
    batch = {"image": image, "index": np.arange(args.batch_size, dtype=np.int32)}
    state, measured = step(state, batch, key)
    for name in measured:
      if name.startswith("loss/") or name == "psnr_hole":
        found.setdefault(name, []).append(float(measured[name]))
  return found


if __name__ == "__main__":
  main()
