"""Time to fill a hole through each interface, and memory for a large picture.

  python benchmarks/inpaint.py --workdir runs/quickstart

Every way completes the same 512x512 photograph with a hole of 100x120 pixels: in
Python, by strategy and blending; one and sixteen pictures a call; by the command, start
included; and over HTTP, from a server that is warm. Then a photograph of 12 megapixels
with three holes, and the most memory that takes beyond what the idle process has.
Run it on a quiet machine.
"""

import io
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable

import harness
import numpy as np
from PIL import Image

from ctx_encoder import xla
from ctx_encoder.data import landscapes
from ctx_encoder.inpaint import BLENDS, STRATEGIES, Inpainter

COMMAND = (sys.executable, "-m", "ctx_encoder.apps.cli")


def main() -> None:
  parser = harness.parser(__doc__, rounds=5)
  parser.add_argument("--workdir", required=True, help="folder of a run")
  args = parser.parse_args()
  harness.print_machine()
  xla.cache_in(pathlib.Path(args.workdir) / "cache")
  began = time.perf_counter()
  inpainter = Inpainter.from_workdir(args.workdir)
  image = landscapes.read("mountain1")[:, 256:768]
  mask = np.zeros((512, 512), bool)
  mask[200:300, 150:270] = True
  loaded = time.perf_counter()
  inpainter(image, mask)
  print(f"{inpainter.name}, {inpainter.image_size}x{inpainter.image_size}:", end=" ")
  print(
    f"read in {loaded - began:.1f} s, first call {time.perf_counter() - loaded:.1f} s"
  )

  print(f"\n{'way in':32} {'seconds':>8} {'pictures/s':>11}")
  seconds = {}

  def report(name: str, step: harness.Step, pictures: int = 1) -> None:
    seconds[name] = timed(step, args.rounds)
    median = statistics.median(seconds[name])
    print(f"{name:32} {median:8.3f} {pictures / median:11.1f}", flush=True)

  for strategy in STRATEGIES:
    for blend in BLENDS:
      report(
        f"Python, {strategy}, {blend}",
        lambda s=strategy, b=blend: inpainter(image, mask, strategy=s, blend=b),
      )
  report("Python, 16 a call", lambda: inpainter([image] * 16, [mask] * 16), 16)
  with tempfile.TemporaryDirectory() as folder:
    picture, hole = pathlib.Path(folder, "image.png"), pathlib.Path(folder, "mask.png")
    Image.fromarray(image).save(picture)
    Image.fromarray(mask).save(hole)
    report("command, one picture", command(args.workdir, picture, hole, folder))
    with server(args.workdir) as url:
      report("HTTP", lambda: post(url, picture.read_bytes(), hole.read_bytes()))

  figures = large(inpainter, image)
  harness.write(args, {"seconds": seconds, "12 megapixels": figures})


def timed(step: harness.Step, rounds: int) -> list[float]:
  step()
  times = []
  for _ in range(rounds):
    start = time.perf_counter()
    step()
    times.append(time.perf_counter() - start)
  return times


def command(workdir: str, image: pathlib.Path, mask: pathlib.Path, folder: str):
  """Returns a step that runs `ctx-encoder inpaint`."""
  words = [*COMMAND, "inpaint", "--workdir", workdir, "--image", image, "--mask", mask]
  words += ["--output", os.path.join(folder, "completed.png")]
  return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


class server:
  """Runs `ctx-encoder demo` on a free port; gives its address."""

  def __init__(self, workdir: str):
    words = [*COMMAND, "demo", "--workdir", workdir, "--port", "0", "--no-browser"]
    self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

  def __enter__(self) -> str:
    for line in self.process.stdout or ():
      if found := re.search(r"http://\S+:\d+/", line):
        return found[0]
    raise SystemExit("ctx-encoder demo ended without an address.")

  def __exit__(self, *_) -> None:
    self.process.terminate()
    self.process.wait()


def post(url: str, image: bytes, mask: bytes) -> np.ndarray:
  """Sends a picture and its mask; returns the completed one."""
  boundary = b"a-boundary-that-is-in-neither"
  body = b""
  for name, data in ((b"image", image), (b"mask", mask)):
    body += b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="%b.png"' % (
      boundary,
      name,
      name,
    )
    body += b"\r\nContent-Type: image/png\r\n\r\n%b\r\n" % data
  request = urllib.request.Request(
    f"{url}api/inpaint",
    body + b"--%b--\r\n" % boundary,
    {"Content-Type": f"multipart/form-data; boundary={boundary.decode()}"},
  )
  with urllib.request.urlopen(request) as answer:
    return np.asarray(Image.open(io.BytesIO(answer.read())))


def large(inpainter: Inpainter, image: np.ndarray) -> dict[str, dict[str, float]]:
  """Prints and returns seconds and memory for 12 megapixels with three holes."""
  file = io.BytesIO()
  Image.fromarray(image).resize((4000, 3000)).save(file, "JPEG", quality=90)
  mask = np.zeros((3000, 4000), bool)
  mask[300:700, 400:1000] = mask[1500:2600, 2400:3300] = mask[1200:1215, :] = True
  print(f"\n{'4000x3000, three holes':32} {'seconds':>8} {'MiB more':>11}")
  figures = {}
  for strategy in STRATEGIES:
    for blend in BLENDS:
      used, took = extra_memory(
        lambda s=strategy, b=blend: inpainter(
          file.getvalue(), mask, strategy=s, blend=b
        )
      )
      figures[f"{strategy}, {blend}"] = {"seconds": took, "mebibytes": used}
      print(f"{f'{strategy}, {blend}':32} {took:8.1f} {used:11.0f}", flush=True)
  return figures


def extra_memory(call: Callable[[], object]) -> tuple[float, float]:
  """Returns the most resident MiB above those before a call, and its seconds."""
  pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
  before = resident("VmRSS")
  start = time.perf_counter()
  call()
  return resident("VmHWM") - before, time.perf_counter() - start


def resident(field: str) -> float:
  """Returns a line of Linux's account of this process, in MiB."""
  status = pathlib.Path("/proc/self/status").read_text()
  return int(status.split(f"{field}:")[1].split()[0]) / 1024


if __name__ == "__main__":
  main()
