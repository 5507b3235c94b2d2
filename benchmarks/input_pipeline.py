"""Images a second of the input pipeline.

  python benchmarks/input_pipeline.py --data FOLDER

Without --data it writes folders of 256x256 JPEGs and reads those. Images are decoded
again every epoch (data.cache=none). Memory is the peak of the process so far, after the
first and after the last round; it should not grow with epochs or the data set.
"""

import pathlib
import resource
import statistics
import tempfile
import time

import harness
import numpy as np
from PIL import Image

from ctx_encoder import config as schema
from ctx_encoder import data


def main() -> None:
  parser = harness.parser(__doc__)
  parser.add_argument("--data", help="folder of images")
  parser.add_argument(
    "--images", type=int, nargs="+", default=[300, 3000], help="to write without --data"
  )
  parser.add_argument("--image_size", type=int, default=128)
  parser.add_argument("--batch_size", type=int, default=16)
  parser.add_argument("--batches", type=int, default=60, help="batches a round")
  args = parser.parse_args()

  harness.print_machine()
  figures = {}
  with tempfile.TemporaryDirectory() as folder:
    paths = {"data": args.data}
    if not args.data:
      paths = {f"{count} images": f"{folder}/{count}" for count in args.images}
      for count in args.images:
        fill(pathlib.Path(folder, str(count)), count)
    print(f"{'':14} {'':8} {'images/s':>9} {'MiB first':>10} {'MiB last':>9}")
    for loader in ("pillow", "tf"):
      for name, path in paths.items():
        rounds = rates(args, path, loader)
        if not rounds:
          continue
        figures[f"{name}, {loader}"] = rounds
        rate = statistics.median(r["images_per_second"] for r in rounds)
        first, last = rounds[0]["peak_mib"], rounds[-1]["peak_mib"]
        print(f"{name:14} {loader:8} {rate:9.0f} {first:10.0f} {last:9.0f}", flush=True)
  harness.write(args, {"rounds": figures})


def rates(args, path: str, loader: str) -> list[dict[str, float]]:
  """Returns the rate and the peak memory of every round."""
  try:
    settings = schema.default().data
    settings.path, settings.image_size = path, args.image_size
    settings.cache, settings.loader = "none", loader
    loaded = data.load(settings)
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
  folder.mkdir()
  rng = np.random.default_rng(0)
  for i in range(count):
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg")


if __name__ == "__main__":
  main()
