"""Seconds of a training step: ours, with stock Flax layers, in PyTorch and in Keras.

  python benchmarks/train_step.py --generator photos --batch_size 16

All train the same networks on the same batch with the same losses, in turns in one
process. Our step masks and augments too; the others get masked images. A peer that is
not installed is skipped. Run it on a quiet machine.
"""

import functools
import importlib.util
import resource
from unittest import mock

import harness
import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import config, distributed, masks, xla
from ctx_encoder.models.ops import conv
from ctx_encoder.training import assembly
from ctx_encoder.training.setup import Run
from ctx_encoder.training.state import TrainState
from ctx_encoder.training.step import TrainStep, make_train_step

TOTAL_STEPS = 1000  # of the run that a step is taken from


def main() -> None:
  parser = harness.parser(__doc__)
  add_network_arguments(parser)
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  parser.add_argument(
    "--peers",
    nargs="*",
    default=["stock", "torch", "keras"],
    choices=("stock", "torch", "keras"),
    help="implementations to compare with (default: all that are installed)",
  )
  parser.add_argument("--devices", type=int, default=1, help="to split the batch over")
  parser.add_argument("--trace", help="folder to write a profile of five steps to")
  args = parser.parse_args()

  steps, flops = {}, 0.0
  steps["ours"], flops = ours(args, xla.options())
  if "stock" in args.peers:
    with harness.stock_layers():
      steps["stock Flax"], _ = ours(args)
      if xla.options():
        steps["stock, our options"], _ = ours(args, xla.options())
  steps |= peers(args, "train_step")
  if args.trace:
    with jax.profiler.trace(args.trace):
      for _ in range(5):
        steps["ours"]()
  steps["gemm"] = harness.gemm()

  seconds = harness.interleave(steps, args.rounds)
  medians = harness.medians(seconds)
  rate = harness.gemm_rate(medians.pop("gemm"))
  achieved = flops / medians["ours"] / 1e9
  harness.print_machine()
  print(
    f"{args.generator}, {args.image_size}x{args.image_size}, batch {args.batch_size},"
    f" width {args.width:g}, {args.dtype}, {args.rounds} rounds"
  )
  print(f"{'':20} {'s a step':>9} {'images/s':>9} {'of ours':>8}")
  for name, median in medians.items():
    ratio = harness.ratio(seconds, name, "ours")
    print(f"{name:20} {median:9.3f} {args.batch_size / median:9.1f} {ratio:8.2f}")
  print(
    f"ours: {flops / args.batch_size / 1e9:.1f} GFLOP an image counted from the network"
    f" tables, {achieved:.0f} GFLOP/s; a {harness.GEMM_SIDE} cubed matrix product"
    f" {rate:.0f} GFLOP/s: {100 * achieved / rate:.0f} %"
  )
  figures = {"seconds": seconds, "flops": flops, "gflops_gemm": rate}
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  figures |= {"share_of_gemm": achieved / rate, "peak_mib": peak}
  harness.write(args, figures)


def add_network_arguments(parser) -> None:
  """Adds arguments for the networks and the batch."""
  parser.add_argument("--generator", choices=("photos", "monet"), default="photos")
  parser.add_argument("--batch_size", type=int, default=16)
  parser.add_argument("--image_size", type=int, default=128)
  parser.add_argument("--width", type=float, default=1.0)


def network_settings(args) -> config.Config:
  """Returns the default configuration with those networks."""
  settings = config.default()
  settings.model.generator = args.generator
  settings.model.width = settings.discriminator.width = args.width
  settings.data.image_size = args.image_size
  return settings


def peers(args, what: str) -> dict[str, harness.Step]:
  """Returns {name: step} of the chosen peers that are installed."""
  images, mask = examples(args)
  found: dict[str, harness.Step] = {}
  for library, name in (("torch", "PyTorch"), ("keras", "Keras")):
    if library not in args.peers:
      continue
    needed = ("torch",) if library == "torch" else ("keras", "tensorflow")
    if not all(map(importlib.util.find_spec, needed)):
      print(f"{name} is not installed: skipped.")
      continue
    peer = importlib.import_module(f"peer_{library}")
    for mode in peer.MODES:
      step = getattr(peer, what)(args, images, mask, mode)
      try:
        step()
      except Exception as error:  # a peer's compiler may not be installed
        print(f"{name} {mode} does not run: {type(error).__name__}: {error}"[:200])
      else:
        found[f"{name} {mode}"] = step
  return found


def examples(args) -> tuple[np.ndarray, np.ndarray]:
  """Returns images `[B, S, S, 3]` in [-1, 1] and centre masks `[B, S, S, 1]`."""
  rng = np.random.default_rng(0)
  shape = (args.batch_size, args.image_size, args.image_size, 3)
  images = rng.uniform(-1, 1, shape).astype(np.float32)
  sample = masks.make_sampler("center", args.image_size)
  mask = masks.for_examples(sample, jax.random.key(0), jnp.arange(args.batch_size))
  return images, np.asarray(mask)


def ours(args, options=None) -> tuple[harness.Step, float]:
  """Returns a compiled step, and its floating-point operations."""
  settings = network_settings(args)
  settings.model.dtype = args.dtype
  run = assembly.run(settings)
  state, train_step = state_and_step(run)
  rng = np.random.default_rng(0)
  shape = (args.batch_size, args.image_size, args.image_size, 3)
  batch = {
    "image": rng.integers(0, 256, shape, dtype=np.uint8),
    "index": np.arange(args.batch_size, dtype=np.int32),
  }
  mesh = distributed.data_mesh(args.devices)
  everywhere = distributed.replicated(mesh)
  state, key = jax.device_put((state, jax.random.key(0)), everywhere)
  batch = jax.device_put(batch, distributed.split(mesh))
  step = jax.jit(train_step, donate_argnums=0, out_shardings=everywhere)
  lowered = step.lower(state, batch, key)
  compiled = lowered.compile(options)

  def train():
    nonlocal state
    state, measured = compiled(state, batch, key)
    jax.block_until_ready((state, measured))

  return train, useful_flops(run, args.batch_size)


def state_and_step(run: Run, seed: int = 0) -> tuple[TrainState, TrainStep]:
  """Returns the initial state and the step, not jitted, of a run."""
  optimizers = run.optimizers(run.generator, TOTAL_STEPS)
  state = jax.jit(lambda: run.init(jax.random.key(seed), optimizers))()
  return state, make_train_step(run, optimizers)


def useful_flops(run: Run, batch_size: int) -> float:
  """Returns the operations of the convolutions and matrix products in a step.

  A multiplication and an addition are two. The generator runs forward once, and
  backward to its parameters and, except for its first layer, to its input; so does the
  discriminator, for real and for completed images, and backward once more from the
  generator's loss to the completed images. A transposed convolution counts each product
  of an input with a weight once, even where `winograd` needs fewer.
  """
  size = run.view.image_size
  inputs = jnp.zeros((1, size, size, run.view.channels))
  generator, first = _forward_flops(run.generator, inputs)
  side = run.objective.discriminator_size
  shown = [jnp.zeros((1, side, side, 3))]
  if run.discriminator.mask_input:
    shown.append(jnp.zeros((1, side, side, 1)))
  discriminator, first_of_discriminator = _forward_flops(run.discriminator, *shown)
  total = 3 * generator - first
  total += 2 * (3 * discriminator - first_of_discriminator) + discriminator
  return float(total * batch_size)


def inference_flops(run: Run, batch_size: int) -> float:
  """Returns the operations of the generator's convolutions and matrix products."""
  size = run.view.image_size
  inputs = jnp.zeros((1, size, size, run.view.channels))
  return _forward_flops(run.generator, inputs)[0] * batch_size


def _forward_flops(network, *inputs) -> tuple[float, float]:
  """Returns the operations of a forward pass, and of its first layer."""
  counted: list[float] = []

  def conv_general(lhs, rhs, strides, padding, **options):
    options["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")
    convolve = functools.partial(
      jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **options
    )
    out = jax.eval_shape(convolve, lhs, rhs)
    counted.append(2.0 * out.size * np.prod(rhs.shape[:3]))
    return jnp.zeros(out.shape, lhs.dtype)

  def conv_transpose(lhs, rhs, strides, padding):
    b, h, w, _ = lhs.shape
    taps = 4 if h == w == 1 else rhs.shape[0] * rhs.shape[1]
    counted.append(2.0 * lhs.size * taps * rhs.shape[2])
    return jnp.zeros((b, h * strides[0], w * strides[1], rhs.shape[2]), lhs.dtype)

  with (
    mock.patch.object(conv, "conv_general_dilated", conv_general),
    mock.patch.object(conv, "conv_transpose", conv_transpose),
  ):
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), *inputs))
    counted.clear()
    jax.eval_shape(lambda v: network.apply(v, *inputs), variables)
  dense = sum(
    2.0 * np.prod(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
    if "dense" in jax.tree_util.keystr(path) and len(leaf.shape) == 2
  )
  return sum(counted) + dense, counted[0]


if __name__ == "__main__":
  main()
