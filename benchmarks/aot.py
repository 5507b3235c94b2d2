"""Compiles the programs for TPUs and GPUs on a machine that has none.

  python benchmarks/aot.py --targets v5e-8 h100-1 --generators photos --dtypes bfloat16

A target is a chip and a number of chips: v5e, v6e (1, 4, 8, 16, 64 or 256), h100, a100
(any number). `pip install -e '.[aot-tpu]'` and `'.[aot-cuda]'` bring the compilers.
Nothing runs: memory, operations and bytes are what the compiler reports, a chip.

Programs: step (the training step as `training.fit` jits it), dispatch (eight of them
in one call, images on the device), evaluation, inference. The operations, bytes and
collectives of a dispatch are those of one of its steps.
"""

import argparse
import itertools
import json
import os
import pathlib
import time
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # of what runs here: nothing but tracing

import chips
import hlo
import jax
import numpy as np
from jax.sharding import Mesh

from ctx_encoder import config, distributed, xla
from ctx_encoder.config import presets
from ctx_encoder.training import assembly, feed
from ctx_encoder.training.eval_step import make_eval_step
from ctx_encoder.training.inference import make_complete
from ctx_encoder.training.setup import Run
from ctx_encoder.training.state import inference_variables
from ctx_encoder.training.step import make_train_step

PROGRAMS = ("step", "dispatch", "evaluation", "inference")
_TOTAL_STEPS = 1000  # of the run that a step is taken from
_STEPS = 8  # of a dispatch
_IMAGES = 2400  # on the device, for a dispatch


def main() -> None:
  args = arguments().parse_args()
  rows = []
  print(
    f"{'target':>9} {'network':>9} {'type':>8} {'sharding':>10} {'program':>10}"
    f" {'images':>6} {'compile s':>9} {'args MiB':>8} {'temp MiB':>8} {'% of chip':>9}"
    f" {'GFLOP':>8} {'GB':>7} {'collectives, MB':>15}"
  )
  for options in programs(args):
    row = options | figures(**options)
    rows.append(row)
    print(line(row), flush=True)
    if args.output:
      document = {"jax": jax.__version__, "rows": rows}
      pathlib.Path(args.output).write_text(json.dumps(document, indent=1) + "\n")


def arguments() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )

  def several(name, default, choices=None, kind: type = str):
    parser.add_argument(name, nargs="+", type=kind, default=default, choices=choices)

  several("--targets", ["v5e-1", "v6e-8", "h100-1", "a100-8"])
  several("--generators", ["photos"], ("photos", "monet", "landscape"))
  several("--dtypes", ["bfloat16"], ("float32", "bfloat16"))
  several("--shardings", ["replicated"], ("replicated", "sharded"))
  several("--programs", ["step"], PROGRAMS)
  several("--batch_sizes", [128], kind=int)
  parser.add_argument("--image_size", type=int, default=128)
  parser.add_argument("--width", type=float, default=1.0, help="of the networks")
  parser.add_argument("--output", help="JSON file to write the figures to")
  return parser


def programs(args):
  """Yields the options of each program; batch sizes are images a chip."""
  for target, generator, dtype, sharding, program, images in itertools.product(
    args.targets,
    args.generators,
    args.dtypes,
    args.shardings,
    args.programs,
    args.batch_sizes,
  ):
    splits = sharding == "sharded"
    if splits and (target.endswith("-1") or program in ("evaluation", "inference")):
      continue  # the same program as replicated
    yield {
      "target": target,
      "generator": generator,
      "dtype": dtype,
      "sharding": sharding,
      "program": program,
      "images": images,
      "image_size": args.image_size,
      "width": args.width,
    }


def figures(
  target, generator, dtype, sharding, program, images, image_size, width
) -> dict[str, Any]:
  """Returns the compiler's figures of one program, a chip, or its error."""
  chip, _, count = target.partition("-")
  mesh = chips.mesh(chip, int(count))
  run = assembly.run(settings(generator, dtype, sharding, image_size, width))
  jitted, operands = PREPARE[program](run, mesh, images * mesh.size)
  lowered = jitted.lower(*operands)
  start = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    return {"error": str(error), "seconds": time.perf_counter() - start}
  seconds = time.perf_counter() - start
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  text = compiled.as_text()
  if memory is None or text is None:
    return {"error": "the compiler reports nothing", "seconds": seconds}
  found = {
    "error": None,
    "seconds": seconds,
    "arguments": memory.argument_size_in_bytes,
    "aliased": memory.alias_size_in_bytes,
    "temporary": memory.temp_size_in_bytes,
    "peak": memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes,
    "memory": chips.CHIPS[chip].memory,
    "flops": cost.get("flops"),
    "bytes": cost.get("bytes accessed") or hlo.traffic(text),
  }
  return found | {"collectives": hlo.by_kind(hlo.collectives(text, mesh.size))}


def line(row: dict[str, Any]) -> str:
  """Returns a row of the table."""
  start = (
    f"{row['target']:>9} {row['generator']:>9} {row['dtype']:>8} {row['sharding']:>10}"
    f" {row['program']:>10} {row['images']:6} {row['seconds']:9.0f}"
  )
  if row["error"]:
    return f"{start} {row['error'][:300]}"

  def giga(value):
    return "-" if value is None else f"{value / 1e9:.1f}"

  total = sum(found["bytes"] for found in row["collectives"].values())
  count = sum(found["count"] for found in row["collectives"].values())
  return (
    f"{start} {row['arguments'] / 2**20:8.0f} {row['temporary'] / 2**20:8.0f}"
    f" {100 * row['peak'] / row['memory']:9.0f} {giga(row['flops']):>8}"
    f" {giga(row['bytes']):>7} {count:4}, {total / 1e6:9.1f}"
  )


def settings(generator, dtype, sharding, image_size, width) -> config.Config:
  """Returns the default configuration with a network; a landscape's own width."""
  made = config.default()
  if generator == "landscape":
    made.update(presets.LANDSCAPE)
  made.model.generator, made.model.dtype = generator, dtype
  made.model.width, made.discriminator.width = width, made.discriminator.width * width
  made.data.image_size, made.sharding = image_size, sharding
  return made


def _step(run: Run, mesh: Mesh):
  """Returns the step, and the state's shapes and places."""
  optimizers = run.optimizers(run.generator, _TOTAL_STEPS)
  shapes = jax.eval_shape(lambda: run.init(jax.random.key(0), optimizers))
  places = distributed.of_state(mesh, shapes, run.config.sharding)
  state = jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    shapes,
    places,
  )
  return make_train_step(run, optimizers, mesh=mesh), state, places


def _operand(mesh: Mesh, shape, dtype, axis: int | None = 0) -> jax.ShapeDtypeStruct:
  """Returns the shape of an array whose `axis` is split; None = copied."""
  place = distributed.replicated(mesh)
  if axis is not None:
    place = distributed.split(mesh, axis)
  return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _batch(run: Run, mesh: Mesh, images: int) -> dict[str, jax.ShapeDtypeStruct]:
  shape = (images, run.view.image_size, run.view.image_size, 3)
  return {
    "image": _operand(mesh, shape, np.uint8),
    "index": _operand(mesh, (images,), np.int32),
  }


def _key(mesh: Mesh) -> jax.ShapeDtypeStruct:
  key = jax.eval_shape(lambda: jax.random.key(0))
  return _operand(mesh, key.shape, key.dtype, None)


def _variables(run: Run, mesh: Mesh) -> Any:
  """Returns the shapes of the generator's variables, copied to every chip."""
  _, state, _ = _step(run, mesh)
  shapes = jax.eval_shape(lambda s: inference_variables(run.generator, s), state)
  return jax.tree.map(lambda x: _operand(mesh, x.shape, x.dtype, None), shapes)


def prepare_step(run: Run, mesh: Mesh, images: int):
  """Returns the jitted training step, and its arguments' shapes."""
  step, state, places = _step(run, mesh)
  jitted = feed.jitted(feed.make_one(step), mesh, places)
  return jitted, (state, _batch(run, mesh, images), _key(mesh))


def prepare_dispatch(run: Run, mesh: Mesh, images: int):
  """Returns a jitted dispatch of several steps, and its arguments' shapes."""
  step, state, places = _step(run, mesh)
  jitted = feed.jitted(feed.make_dispatch(step), mesh, places)
  stored = _batch(run, mesh, _IMAGES)
  stored = [_operand(mesh, x.shape, x.dtype, None) for x in stored.values()]
  rows = _operand(mesh, (_STEPS, images), np.int32, 1)
  return jitted, (state, *stored, rows, _key(mesh))


def prepare_evaluation(run: Run, mesh: Mesh, images: int):
  """Returns the jitted evaluation step, and its arguments' shapes."""
  options = xla.options(distributed.platform(mesh))
  jitted = jax.jit(make_eval_step(run), compiler_options=options)
  return jitted, (_variables(run, mesh), _batch(run, mesh, images), _key(mesh))


def prepare_inference(run: Run, mesh: Mesh, images: int):
  """Returns jitted inference from uint8 to uint8, and its arguments' shapes."""

  def complete(variables, images, masks):
    return make_complete(run.generator, variables, run.view)(images, masks)

  operands = _batch(run, mesh, images)["image"]
  masks = _operand(mesh, (*operands.shape[:3], 1), np.uint8)
  options = xla.options(distributed.platform(mesh))
  jitted = jax.jit(complete, compiler_options=options)
  return jitted, (_variables(run, mesh), operands, masks)


PREPARE = dict(
  zip(
    PROGRAMS,
    (prepare_step, prepare_dispatch, prepare_evaluation, prepare_inference),
    strict=True,
  )
)


if __name__ == "__main__":
  main()
