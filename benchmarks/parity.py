"""Compares losses and gradients of our step with those of stock Flax layers.

  python benchmarks/parity.py --generator photos --batch_size 16

Stock layers are trained, and our step is made from each of their states. Prints the
relative differences of losses, the hole's PSNR and gradient norms; the exit code is 1
if losses differ by more than --limit. (A gradient norm may differ by more where
rounding pushes an activation across 0.) Then both train independently, and so do stock
layers with XLA's default options: Adam amplifies rounding, and the last column shows
how much of the differences that explains.
"""

import sys

import harness
import jax
import numpy as np
import train_step

from ctx_encoder import xla
from ctx_encoder.training import assembly


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

  same_state, independent, control_only = [], [], []
  expected: dict[str, float] = {}
  own_state = control_state = state = None
  for step in range(args.steps):
    _, same = ours(state, step)
    own_state, own = ours(own_state, step)
    other = None
    if control:
      control_state, other = control(control_state, step)
    state, expected = stock(state, step)
    same_state.append(differences(same, expected))
    independent.append(differences(own, expected))
    control_only.append(differences(other, expected) if other else {})
  harness.print_machine()
  print(
    f"{args.generator}, {args.image_size}x{args.image_size}, batch {args.batch_size},"
    f" width {args.width:g}, {args.steps} steps: largest relative differences"
  )
  print(
    f"{'':24} {'same state':>11} {'independent':>11} {'stock, default options':>23}"
  )
  for name in expected:
    largest = [
      max(step.get(name, np.nan) for step in steps)
      for steps in (same_state, independent, control_only)
    ]
    print(f"{name:24} {largest[0]:11.1e} {largest[1]:11.1e} {largest[2]:23.1e}")
  harness.write(
    args,
    {"same_state": same_state, "independent": independent, "control": control_only},
  )
  losses = [v for step in same_state for k, v in step.items() if k.startswith("loss/")]
  if max(losses) > args.limit:
    sys.exit(f"Above {args.limit:g}.")


def differences(
  found: dict[str, float], expected: dict[str, float]
) -> dict[str, float]:
  return {name: abs(found[name] / value - 1) for name, value in expected.items()}


def trainer(args, options):
  """Returns `train(state, number) -> (state, {name: value})`; None starts it."""
  settings = train_step.network_settings(args)
  settings.log.grad_norms = True
  start, train_step_function = train_step.state_and_step(assembly.run(settings))
  step = jax.jit(train_step_function, compiler_options=options)

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
