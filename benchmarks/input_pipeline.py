"""Images a second that the input pipeline gives, against what a training step takes.

  python benchmarks/input_pipeline.py --data FOLDER

Without --data it writes a folder of JPEGs of 256x256 and reads that. Each loader reads
and decodes at every epoch (data.cache=none); memory tells what the process holds after
the first and after the last round.
"""

import pathlib
import resource
import statistics
import tempfile
import time

import harness
import numpy as np
from PIL import Image

from ctx_encoder import data


def main() -> None:
  parser = harness.parser(__doc__)
  parser.add_argument("--data", help="folder of images")
  parser.add_argument("--images", type=int, default=600, help="to write without --data")
  parser.add_argument("--image_size", type=int, default=128)
  parser.add_argument("--batch_size", type=int, default=16)
  parser.add_argument("--batches", type=int, default=60, help="batches a round")
  args = parser.parse_args()

  harness.print_machine()
  with tempfile.TemporaryDirectory() as folder:
    path = args.data or folder
    if not args.data:
      fill(pathlib.Path(folder), args.images)
    figures = {loader: rates(args, path, loader) for loader in ("tf", "pillow")}
  print(f"{'':8} {'images/s':>9} {'MiB first':>10} {'MiB last':>9}")
  for loader, rounds in figures.items():
    rate = statistics.median(r["images_per_second"] for r in rounds)
    first, last = rounds[0]["peak_mib"], rounds[-1]["peak_mib"]
    print(f"{loader:8} {rate:9.0f} {first:10.0f} {last:9.0f}")
  harness.write(args, {"rounds": figures})


def rates(args, path: str, loader: str) -> list[dict[str, float]]:
  """Returns the rate and the peak memory of every round."""
  try:
    loaded = data.load(
      path=path, image_size=args.image_size, cache="none", loader=loader
    )
  except ValueError as error:
    print(error)
    return []
  batches = data.train_batches(loaded.train, batch_size=args.batch_size, seed=0)
  next(batches)
  found = []
  for _ in range(args.rounds):
    start = time.perf_counter()
    for _ in range(args.batches):
      next(batches)
    seconds = time.perf_counter() - start
    found.append(
      {
        "images_per_second": args.batches * args.batch_size / seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
      }
    )
  batches.close()
  return found


def fill(folder: pathlib.Path, count: int) -> None:
  """Writes JPEGs of smoothed noise, about as large as photographs of that size."""
  rng = np.random.default_rng(0)
  for i in range(count):
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg")


if __name__ == "__main__":
  main()
