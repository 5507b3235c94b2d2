"""The cost of a step by batch, image and network size, and by number of devices.

  python benchmarks/scaling.py --batch_sizes 1 4 16 64 --widths 0.25 1 --devices 1 2

One of them varies at a time; the others stay at 16 images, 128 pixels, width 1, one
device. (For the size of the data set see `input_pipeline.py`.) Each row is a process,
whose peak memory includes compiling.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import harness


def main() -> None:
  parser = harness.parser(__doc__, rounds=3)
  parser.add_argument("--generator", choices=("photos", "monet"), default="photos")
  parser.add_argument("--batch_sizes", type=int, nargs="*", default=[1, 4, 16, 64])
  parser.add_argument("--image_sizes", type=int, nargs="*", default=[64, 128, 256])
  parser.add_argument("--widths", type=float, nargs="*", default=[0.25, 0.5, 1.0])
  parser.add_argument("--devices", type=int, nargs="*", default=[1])
  args = parser.parse_args()

  usual = {"batch_size": 16, "image_size": 128, "width": 1.0, "devices": 1}
  varied = {
    "batch_size": args.batch_sizes,
    "image_size": args.image_sizes,
    "width": args.widths,
    "devices": args.devices,
  }
  harness.print_machine()
  print(f"{args.generator}")
  print(
    f"{'batch':>6} {'image':>6} {'width':>6} {'devices':>7} {'s a step':>9}"
    f" {'images/s':>9} {'GFLOP/s':>8} {'peak MiB':>9}"
  )
  rows = []
  for name, values in varied.items():
    for value in values:
      options = usual | {name: value}
      if options in [row["options"] for row in rows]:
        continue
      rows.append(measure(args, options))
      row = rows[-1]
      print(
        f"{options['batch_size']:6} {options['image_size']:6} {options['width']:6g}"
        f" {options['devices']:7} {row['seconds']:9.3f}"
        f" {options['batch_size'] / row['seconds']:9.1f}"
        f" {row['flops'] / row['seconds'] / 1e9:8.0f} {row['peak_mib']:9.0f}",
        flush=True,
      )
  harness.write(args, {"rows": rows})


def measure(args, options: dict) -> dict:
  """Runs train_step.py in a new process."""
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder, "figures.json")
    command = [sys.executable, str(pathlib.Path(__file__).with_name("train_step.py"))]
    command += [f"--{name}={value}" for name, value in options.items()]
    command += [f"--generator={args.generator}", f"--rounds={args.rounds}"]
    command += [f"--output={output}", "--peers"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    figures = json.loads(output.read_text())
  seconds = harness.medians(figures["seconds"])["ours"]
  return {
    "options": options,
    "seconds": seconds,
    "flops": figures["flops"],
    "peak_mib": figures["peak_mib"],
  }


if __name__ == "__main__":
  main()
