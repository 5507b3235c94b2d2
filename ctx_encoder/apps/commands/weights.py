"""Lists published weights for losses and metrics, and downloads them.

    ctx-encoder weights                                   # lists files and their uses
    ctx-encoder weights vgg16 --download --output weights

Only --download uses the network. Downloaded files are compared with the checksum of
their publisher (LPIPS has published none: the one its files have always had). Existing
files are checked and kept.
"""

import argparse
import hashlib
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ctx_encoder.apps.arguments import Parser
from ctx_encoder.data import files

_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
_TORCHVISION = "https://download.pytorch.org/models/"
_LPIPS = (
  "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/"
  "weights/v0.1/"
)


_STYLE = "style loss: --config.style.features={0} --config.style.path=FILE"
_TRUNK = "FID, KID, LPIPS: evaluate --network {0} --trunk FILE"
_HEADS = "LPIPS: evaluate --network {0} --heads FILE"


class Published(NamedTuple):
  """A file: address, MD5 or SHA-256 (or its first digits), and use."""

  url: str
  checksum: str
  use: str

  @property
  def name(self) -> str:
    return self.url.rpartition("/")[2]

  @property
  def algorithm(self) -> str:
    return "md5" if len(self.checksum) == 32 else "sha256"


def _keras(name: str, checksum: str) -> Published:
  file = f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
  return Published(f"{_KERAS}{name}/{file}", checksum, _STYLE.format(name))


def _trunk(name: str, file: str) -> Published:
  checksum = file.rpartition("-")[2]  # torchvision's names end with it
  return Published(f"{_TORCHVISION}{file}.pth", checksum, _TRUNK.format(name))


def _heads(name: str, checksum: str) -> Published:
  return Published(f"{_LPIPS}{name}.pth", checksum, _HEADS.format(name))


FILES = {
  "vgg16": _keras("vgg16", "6d6bbae143d832006294945121d1f1fc"),
  "vgg19": _keras("vgg19", "253f8cb515780f3b799900260a226db6"),
  "alex": _trunk("alex", "alexnet-owt-7be5be79"),
  "squeeze": _trunk("squeeze", "squeezenet1_1-b8a52dc0"),
  "vgg": _trunk("vgg", "vgg16-397923af"),
  "lpips_alex": _heads(
    "alex", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
  ),
  "lpips_squeeze": _heads(
    "squeeze", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76"
  ),
  "lpips_vgg": _heads(
    "vgg", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"
  ),
}


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "names",
    nargs="*",
    metavar="NAME",
    help=f"one or more of: {', '.join(FILES)} (default: all)",
  )
  parser.add_argument(
    "--download", action="store_true", help="fetch the named files from the internet"
  )
  parser.add_argument("--output", default="weights", help="folder for the files")


def run(args: argparse.Namespace) -> int:
  """Lists or downloads files; returns 0, or 1 if one of them failed."""
  unknown = sorted(set(args.names) - set(FILES))
  if unknown or (args.download and not args.names):
    problem = f"there is no {unknown[0]!r}" if unknown else "--download needs a name"
    raise ValueError(f"{problem}; names are {', '.join(FILES)}.")
  failed = 0
  for name in args.names or FILES:
    published = FILES[name]
    if not args.download:
      print(f"{name}: {published.use}\n  {published.url}")
      continue
    try:
      print(fetch(published, Path(args.output)))
    except (OSError, ValueError) as error:
      failed = 1
      print(f"ctx-encoder weights: {name}: {error}", file=sys.stderr)
  return failed


def fetch(published: Published, folder: Path) -> Path:
  """Downloads a file unless it exists, checks it and returns its path.

  Raises:
    OSError: it cannot be downloaded or written.
    ValueError: its checksum is not the published one.
  """
  path = folder / published.name

  def download(new: Path) -> None:
    with urllib.request.urlopen(published.url, timeout=60) as answer:
      size = int(answer.headers.get("Content-Length") or 0)
      with (
        new.open("wb") as file,
        tqdm(total=size, unit="B", unit_scale=True, desc=path.name) as bar,
      ):
        while block := answer.read(1 << 20):
          file.write(block)
          bar.update(len(block))
    check(published, new)

  if path.exists():
    check(published, path)
    return path
  try:
    files.write(path, download)
  except urllib.error.URLError as error:
    raise OSError(f"{published.url} cannot be downloaded: {error.reason}") from error
  return path


def check(published: Published, path: Path) -> None:
  """Raises ValueError unless a file has the published checksum."""
  with path.open("rb") as file:
    found = hashlib.file_digest(file, published.algorithm).hexdigest()
  if not found.startswith(published.checksum):
    raise ValueError(
      f"{path} is not the published file: its {published.algorithm} is {found}, not"
      f" {published.checksum}. Remove it and download it again."
    )
