"""Milliseconds to complete a batch of images: ours, in PyTorch and in Keras.

  python benchmarks/inference.py --generator photos --batch_sizes 1 16

Ours is one call from uint8 images and masks to uint8 images; the others get float32
images, as their networks take them. All take turns. Run it on a quiet machine.
"""

import harness
import jax
import jax.numpy as jnp
import numpy as np
import train_step

from ctx_encoder import pixels
from ctx_encoder.training import assembly
from ctx_encoder.training.inference import make_complete


def main() -> None:
  parser = harness.parser(__doc__)
  parser.add_argument("--generator", choices=("photos", "monet"), default="photos")
  parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 16])
  parser.add_argument("--image_size", type=int, default=128)
  parser.add_argument("--width", type=float, default=1.0)
  parser.add_argument("--peers", nargs="*", default=["torch", "keras"])
  args = parser.parse_args()

  harness.print_machine()
  print(f"{args.generator}, {args.image_size}x{args.image_size}, width {args.width:g}")
  print(f"{'':6} {'':20} {'ms':>8} {'images/s':>9} {'of ours':>8}")
  figures = {}
  for batch_size in args.batch_sizes:
    args.batch_size = batch_size
    steps = {"ours": ours(args)} | train_step.peers(args, "inference")
    seconds = harness.interleave(steps, args.rounds)
    for name, median in harness.medians(seconds).items():
      ratio = harness.ratio(seconds, name, "ours")
      rate = args.batch_size / median
      print(
        f"{args.batch_size:6} {name:20} {1e3 * median:8.1f} {rate:9.1f} {ratio:8.2f}"
      )
    figures[args.batch_size] = seconds
  harness.write(args, {"seconds": figures})


def ours(args) -> harness.Step:
  """Returns a function that completes the images and waits for them."""
  settings = train_step.network_settings(args)
  generator = assembly.generator(settings)
  size = (1, args.image_size, args.image_size, 3)
  variables = jax.jit(lambda: generator.init(jax.random.key(0), jnp.zeros(size)))()
  complete = make_complete(generator, variables, assembly.view(settings))
  images, mask = train_step.examples(args)
  images = np.asarray(pixels.to_uint8(jnp.asarray(images / 2 + 0.5)))
  return lambda: np.asarray(complete(images, mask))


if __name__ == "__main__":
  main()
