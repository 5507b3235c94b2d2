"""Makes the same steps in a layout of devices, and writes the resulting arrays.

  python layouts.py LAYOUT OUTPUT
  python layouts.py train STRATEGY PICTURES WORKDIR STEPS [PLACEMENT ADDRESS PROCESS]

Layouts: one, jit, sharded (all devices of the process), pmap; one_alternating,
sharded_alternating: with the discriminator updated first. "train" is a complete
run; with an address, this is one of two processes.
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import tiny

from ctx_encoder import distributed
from ctx_encoder.training import assembly, feed, trainer
from ctx_encoder.training.step import make_train_step

STEPS, BATCH = 3, 16


def config():
  return tiny.config(
    batch_size=BATCH,
    ema_decay=0.5,
    model__generator="monet",
    model__width=1 / 64,
    masks__kind="random_block",
    augment__flip_horizontal=0.5,
    optimizer__name="rmsprop",  # Adam's first steps amplify rounding
    optimizer__learning_rate=1e-4,
  )


def batches():
  return [tiny.batch(BATCH, seed=seed) for seed in range(STEPS)]


def assembled(strategy="replicated", order="simultaneous"):
  """Returns the run, its optimizers, and a function without arguments to its state."""
  settings = config()
  settings.sharding, settings.update_order = strategy, order
  run = assembly.run(settings)
  optimizers = run.optimizers(run.generator, STEPS)
  return run, optimizers, lambda: run.init(jax.random.key(0), optimizers)


def by_jit(count, strategy, order="simultaneous"):
  distributed._SMALLEST_SPLIT = 16
  run, optimizers, init = assembled(strategy, order)
  mesh = distributed.data_mesh(count)
  shapes = jax.eval_shape(init)
  places = distributed.of_state(mesh, shapes, strategy)
  state = jax.jit(init, out_shardings=places)()
  train_step = make_train_step(run, optimizers, mesh=mesh)
  if strategy == "sharded":
    split = sum(not place.is_fully_replicated for place in jax.tree.leaves(places))
    assert split > 20, split
  step, key = feed.jitted(feed.make_one(train_step), mesh, places), jax.random.key(0)
  placed = [jax.device_put(batch, distributed.split(mesh)) for batch in batches()]
  program = step.lower(state, placed[0], key).compile()
  print_program(program.as_text(), shapes, places)
  for batch in placed:
    state, measured = program(state, batch, key)
  for leaf, place in zip(jax.tree.leaves(state), jax.tree.leaves(places), strict=True):
    assert leaf.sharding.is_equivalent_to(place, leaf.ndim)
  return state, {name: value[0] for name, value in measured.items()}


def by_pmap():
  run, optimizers, init = assembled()
  count = jax.device_count()
  state = jax.tree.map(lambda x: jnp.stack([x] * count), jax.jit(init)())
  train_step = make_train_step(run, optimizers, axis_name="data")
  step = jax.pmap(train_step, axis_name="data", in_axes=(0, 0, None))
  for batch in batches():
    parts = {k: v.reshape(count, -1, *v.shape[1:]) for k, v in batch.items()}
    state, measured = step(state, parts, jax.random.key(0))
  for leaf in jax.tree.leaves(state):
    np.testing.assert_allclose(leaf, np.broadcast_to(leaf[:1], leaf.shape), rtol=1e-6)
  return jax.tree.map(lambda x: x[0], (state, measured))


def print_program(text, shapes, places):
  """Prints what a compiled step exchanges and writes in place, as JSON.

  exchanged: [shapes, kind] of every collective; parameters: the shapes that are split,
  by network; arrays, donated: number of arrays in the state, and of those written in
  place.
  """
  kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
  found = {
    "exchanged": re.findall(f"= (.*?) ({kinds})\\(", text),
    "parameters": {
      name: split_shapes(getattr(shapes, name).params, getattr(places, name).params)
      for name in ("generator", "discriminator")
    },
    "arrays": len(jax.tree.leaves(shapes)),
    "donated": len(re.findall("(?:may|must)-alias", text)),
  }
  print(json.dumps(found))


def split_shapes(shapes, places):
  pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(places), strict=True)
  return [x.shape for x, place in pairs if not place.is_fully_replicated]


def train(strategy, pictures, workdir, steps, placement="auto", address="", number=0):
  if address:
    jax.distributed.initialize(address, 2, int(number))
    assert jax.process_count() == 2
  distributed._SMALLEST_SPLIT = 16
  settings = config()
  settings.data.path = pictures
  settings.batch_size = 8
  settings.num_steps = int(steps)
  settings.sharding = strategy
  settings.data.placement = placement
  settings.log.every_steps = 1
  trainer.train(settings, workdir)


def main():
  if sys.argv[1] == "train":
    return train(*sys.argv[2:])
  layout, output = sys.argv[1:]
  made = {
    "one": lambda: by_jit(1, "replicated"),
    "jit": lambda: by_jit(None, "replicated"),
    "sharded": lambda: by_jit(None, "sharded"),
    "one_alternating": lambda: by_jit(1, "replicated", "alternating"),
    "sharded_alternating": lambda: by_jit(None, "sharded", "alternating"),
    "pmap": by_pmap,
  }[layout]()
  leaves = jax.tree_util.tree_leaves_with_path(made)
  return np.savez(output, **{jax.tree_util.keystr(p): np.asarray(x) for p, x in leaves})


if __name__ == "__main__":
  main()
