"""Opens a page in the browser that fills holes in pictures with a trained network.

Open a picture, paint over the part to replace, press the button. The page loads nothing
from other servers, and pictures stay on this machine.

    ctx-encoder demo
    ctx-encoder demo --workdir runs/photos_block --host 0.0.0.0 --port 8000

With --host 0.0.0.0 the page can be opened from every device that reaches this machine,
such as a phone in the same network, by its number or this machine's name; --allow-host
allows other names. The HTTP API does the same for programs:

    curl -F image=@photo.jpg -F mask=@mask.png -o completed.png \\
        http://127.0.0.1:7860/api/inpaint

The mask is a picture of the same size in which bright pixels are the hole. The schema
of the API is at /openapi.json.
"""

import argparse
import functools
import subprocess
import sys
from pathlib import Path

import numpy as np

import ctx_encoder
from ctx_encoder import xla
from ctx_encoder.apps import demo
from ctx_encoder.apps.demo import server
from ctx_encoder.inpaint import Inpainter, shipped

_DEFAULTS = demo.Limits()


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  add = parser.add_argument
  add(
    "--workdir",
    help="folder of a run, as written by launch.py (default: the package's own,"
    " trained on landscapes)",
  )
  add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
  add("--port", type=int, default=7860, help="0 = any free port (default: 7860)")
  add(
    "--allow-host",
    nargs="+",
    default=[],
    metavar="NAME",
    help="further names in the browser's address bar, such as that of a proxy; requests"
    " for other names are refused",
  )
  add(
    "--max-pixels",
    type=int,
    default=_DEFAULTS.pixels,
    help=f"largest picture, in pixels (default: {_DEFAULTS.pixels})",
  )
  add(
    "--max-megabytes",
    type=float,
    default=_DEFAULTS.bytes / 1e6,
    help=f"largest upload, in megabytes (default: {_DEFAULTS.bytes / 1e6:g})",
  )
  add("--no-browser", action="store_true", help="only print the address")


def run(args: argparse.Namespace) -> int:
  """Serves until Ctrl-C; returns 0."""
  limits = _limits(args)
  with demo.bind(args.host, args.port) as bound:
    if args.workdir:
      xla.cache_in(Path(args.workdir) / "cache")
      inpainter = _inpainter(args.workdir)
    else:
      shipped.keep_compiled()
      inpainter = Inpainter.shipped()
    _warm_up(inpainter)
    hosts = demo.allowed_hosts(args.host, args.allow_host)
    ready = functools.partial(_announce, args, bound)
    demo.serve(inpainter, bound, limits, hosts=hosts, ready=ready)
  return 0


def _limits(args: argparse.Namespace) -> demo.Limits:
  for option, most in (("port", 65_535), ("max-pixels", 10**9), ("max-megabytes", 1e4)):
    value, least = getattr(args, option.replace("-", "_")), int(option != "port")
    if not least <= value <= most:
      raise ValueError(f"--{option} must be within [{least}, {most:g}], not {value:g}.")
  return demo.Limits(args.max_pixels, int(args.max_megabytes * 1e6))


def _inpainter(workdir: str) -> Inpainter:
  """Loads the network; if there is none, offers to train one first.

  Raises:
    FileNotFoundError: there is no network.
    ValueError: its checkpoint is damaged.
  """
  try:
    return Inpainter.from_workdir(workdir)
  except FileNotFoundError as error:
    launch = Path(ctx_encoder.__file__).parents[1] / "launch.py"
    # launch.py exists in a checkout of the repository, not in an installed package.
    if not (sys.stdin.isatty() and sys.stdout.isatty() and launch.exists()):
      raise
    print(f"There is no trained network in {workdir}.")
    question = "Train a small one there now? It takes two minutes on two cores. [y/N] "
    try:
      agreed = input(question).strip().lower() in ("y", "yes")
    except EOFError:
      agreed = False
    if not agreed:
      raise
    config = launch.parent / "configs/quickstart.py"
    command = [sys.executable, launch, f"--config={config}", f"--workdir={workdir}"]
    if subprocess.run(command, check=False).returncode:
      raise OSError("The training failed, see above.") from error
    return Inpainter.from_workdir(workdir)


def _warm_up(inpainter: Inpainter) -> None:
  """Fills a hole, so that the first request does not wait for compilation."""
  side = inpainter.image_size
  image = np.full((side, side, 3), 127, np.uint8)
  mask = np.zeros((side, side), bool)
  mask[side // 4 : -side // 4, side // 4 : -side // 4] = True
  inpainter(image, mask)


def _announce(args: argparse.Namespace, bound) -> None:
  address = server.url(bound)
  name = args.workdir or "The network of the package"
  print(f"{name} fills holes at {address}  (Ctrl-C stops it)", flush=True)
  if not args.no_browser:
    server.open_browser(address)
