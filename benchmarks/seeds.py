"""Several small models in one process, by `jax.vmap` over seeds: is it faster?

  python benchmarks/seeds.py --seeds 3 --width 0.25 --image_size 64

Compared with one after the other, as in `ctx-encoder sweep`. Every model has its own
weights, holes and pictures.
"""

import harness
import jax
import jax.numpy as jnp
import numpy as np
import train_step

from ctx_encoder import xla
from ctx_encoder.training import assembly


def main() -> None:
  parser = harness.parser(__doc__)
  train_step.add_network_arguments(parser)
  parser.set_defaults(width=0.25, image_size=64)
  parser.add_argument("--seeds", type=int, default=3, help="models (default: 3)")
  args = parser.parse_args()

  run = assembly.run(train_step.network_settings(args))
  rng = np.random.default_rng(0)
  shape = (args.seeds, args.batch_size, args.image_size, args.image_size, 3)
  batches = {
    "image": jnp.asarray(rng.integers(0, 256, shape, dtype=np.uint8)),
    "index": jnp.tile(jnp.arange(args.batch_size), (args.seeds, 1)),
  }
  keys = jax.random.split(jax.random.key(0), args.seeds)
  options = xla.options()
  made = [train_step.state_and_step(run, seed) for seed in range(args.seeds)]
  states, step = [state for state, _ in made], made[0][1]
  together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
  one = jax.jit(step, donate_argnums=0, compiler_options=options)
  all_at_once = jax.jit(jax.vmap(step), donate_argnums=0, compiler_options=options)

  def by_vmap():
    nonlocal together
    together, measured = all_at_once(together, batches, keys)
    jax.block_until_ready(measured)

  def in_turn():
    for i, key in enumerate(keys):
      batch = {name: value[i] for name, value in batches.items()}
      states[i], measured = one(states[i], batch, key)
      jax.block_until_ready(measured)

  seconds = harness.interleave({"in turn": in_turn, "vmap": by_vmap}, args.rounds)
  harness.print_machine()
  print(
    f"{args.generator}, {args.seeds} models, {args.image_size}x{args.image_size}, batch"
    f" {args.batch_size}, width {args.width:g}"
  )
  for name, median in harness.medians(seconds).items():
    print(f"{name:8} {median:8.3f} s for a step of all")
  print(f"vmap takes {harness.ratio(seconds, 'vmap', 'in turn'):.2f} times as long")
  harness.write(args, {"seconds": seconds})


if __name__ == "__main__":
  main()
