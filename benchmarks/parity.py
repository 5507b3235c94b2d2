"""Are the losses and gradients of our step those of stock Flax layers?

  python benchmarks/parity.py --generator photos --batch_size 16

Along a training on stock layers, our step is taken from each of its states; prints how
far losses, the hole's PSNR and the norms of the gradients are apart, relative to their
size, and exits with 1 where losses are above --limit. (A gradient's norm may differ by
more at a step where rounding pushes an activation across 0.) Then both train by
themselves, and so does the stock step under XLA's default options: Adam turns rounding
into differences that grow, and the last column says how much of them is that alone.
"""

import sys

import harness
import jax
import numpy as np
import train_step

from ctx_encoder import xla
from ctx_encoder.training import assembly as build


def main() -> None:
  parser = harness.parser(__doc__, rounds=0)
  train_step.add_network_arguments(parser)
  parser.add_argument("--steps", type=int, default=20)
  parser.add_argument("--limit", type=float, default=1e-4)
  args = parser.parse_args()

  ours, control = trainer(args, xla.options()), None
  with harness.stock_layers():
    stock = trainer(args, xla.options())
    state, _ = stock(None, 0)  # traced while the patch holds
    if xla.options():
      control = trainer(args, None)
      control(None, 0)

  along, alone, alone_control = [], [], []
  expected: dict[str, float] = {}
  own_state = control_state = state = None
  for step in range(args.steps):
    _, same = ours(state, step)
    own_state, own = ours(own_state, step)
    other = None
    if control:
      control_state, other = control(control_state, step)
    state, expected = stock(state, step)
    along.append(apart(same, expected))
    alone.append(apart(own, expected))
    alone_control.append(apart(other, expected) if other else {})
  harness.print_machine()
  print(
    f"{args.generator}, {args.image_size}x{args.image_size}, batch {args.batch_size},"
    f" width {args.width:g}, {args.steps} steps: largest relative differences"
  )
  print(f"{'':24} {'same state':>11} {'by itself':>11} {'stock, default options':>23}")
  for name in expected:
    largest = [
      max(step.get(name, np.nan) for step in steps)
      for steps in (along, alone, alone_control)
    ]
    print(f"{name:24} {largest[0]:11.1e} {largest[1]:11.1e} {largest[2]:23.1e}")
  harness.write(args, {"same_state": along, "alone": alone, "control": alone_control})
  losses = [v for step in along for k, v in step.items() if k.startswith("loss/")]
  if max(losses) > args.limit:
    sys.exit(f"Above {args.limit:g}.")


def apart(found: dict[str, float], expected: dict[str, float]) -> dict[str, float]:
  return {name: abs(found[name] / value - 1) for name, value in expected.items()}


def trainer(args, options):
  """Returns `train(state, number) -> (state, {name: value})`; None starts it."""
  settings = train_step.network_settings(args)
  settings.log.grad_norms = True
  run = build.run(settings, total_steps=1000)
  start = jax.jit(lambda: run.init(0, average=False))()
  step = jax.jit(run.train_step, compiler_options=options)

  def train(state, number: int):
    # Smooth pictures, as photographs are: squares of 8 pixels.
    shape = (args.batch_size, args.image_size // 8, args.image_size // 8, 3)
    image = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    image = image.repeat(8, axis=1).repeat(8, axis=2)
    batch = {"image": image, "index": np.arange(args.batch_size, dtype=np.int32)}
    state, measured = step(state or start, batch, jax.random.key(0))
    wanted = ("loss/", "psnr_hole", "grad_norm/")
    return state, {k: float(v) for k, v in measured.items() if k.startswith(wanted)}

  return train


if __name__ == "__main__":
  main()
