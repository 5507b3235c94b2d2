#!/usr/bin/env python3
"""Rebuilds the embedded landscape photographs from two Debian packages.

    apt-get download endless-sky-high-dpi endless-sky-data
    python tools/landscapes.py endless-sky-high-dpi_*.deb endless-sky-data_*.deb

Each argument is a .deb file or the folder it was extracted to. The first package has
the photographs at 1440x720; both have a copyright file, and the licences in them must
agree. Writes one WebP file per photograph, manifest.json and NOTICE. The output is the
same, byte for byte, for the same packages and the same Pillow and libwebp.

Selection, in this order:
  1. Public domain or CC0 according to the copyright files.
  2. Not from morguefile.com, whose own terms forbid redistributing a file unchanged.
  3. Not in `EXCLUDED`, which gives the reason for each photograph left out.
Photographs of one scene share a group (`SCENES`), so that a split by group has no scene
on both sides.

Patterns of the copyright files such as `fields1*` mean `fields1.jpg` alone, although
they match `fields10-sfiera.jpg` too, a work under CC BY-SA by a named author. A pattern
that ends in a digit and a star is therefore read as that number only.
"""

import argparse
import fnmatch
import gzip
import hashlib
import io
import itertools
import json
import lzma
import pathlib
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, features

HEIGHT = 512  # pixels; twice the largest crop that networks here are trained on
QUALITY = 80  # of WebP; with HEIGHT it gives 4.4 MB
FREE = ("public-domain", "CC0-1.0")
DEFAULT_OUT = pathlib.Path(__file__).parents[1] / "ctx_encoder" / "data" / "landscapes"

# Looked at one by one, at 720x360.
EXCLUDED = {
  "earthrise": "63 % of its pixels are black",
  "nasa4": "colours were replaced: a green and red night picture",
  "nasa8": "clouds of Jupiter from processed spacecraft data, not a photograph",
  "nasa9": "clouds of Jupiter, recoloured, with figures painted in",
  "space1": "composite: the panels at both sides were added",
  "space5": "people in the foreground",
}

# Photographs of one place or building; every other photograph is a group of its own.
SCENES = {
  "escarpment": ("fields6", "fog4", "sky0"),
  "launch-pad-desert": ("nasa1", "nasa2", "nasa6"),
  "launch-pad-night": ("nasa5", "nasa7"),
  "new-york": ("city10", "city11"),
  "rocket-hall": ("station1", "station4"),
  "snow-patches": ("badlands8", "hills2"),
  "space-station": ("space3", "space4", "station2", "station3"),
}
FOLDERS = ("*", "images/*", "images/land/*")  # patterns of complete folders
NEAR_DUPLICATE = 0.97  # correlation of thumbnails; different scenes stay below 0.94


NOTICE = """\
Landscape photographs
=====================

These {count} photographs come from Debian's packages
{packages}, part of the game
Endless Sky (https://github.com/endless-sky/endless-sky-high-dpi). Each is in the public
domain according to the packages' copyright files, which say:

  unsplash.com: "a collection of photographs that have been donated and placed in the
  public domain"
  NASA, USGS: "in the public domain because they were created by government employees
  while doing work for the government"

Attribution is not required; it is given as far as it is known. The copyright files do
not name the photographers of unsplash.com. NASA and the U.S. Geological Survey do not
endorse this software.

Changes: scaled from 720 to {height} pixels in height, stored as WebP.
tools/landscapes.py rebuilds the files; manifest.json has their checksums and the groups
of photographs that show one scene.

{heading}
{table}
"""


class Package(NamedTuple):
  """What is used of one package: its version, copyright file and photographs."""

  name: str
  version: str
  copyright: str
  photographs: dict[str, tuple[str, bytes]]  # {stem: (path in the package, JPEG)}


class Stanza(NamedTuple):
  """A `Files:` paragraph of a copyright file."""

  patterns: tuple[str, ...]
  author: str
  licence: str
  source: str


def read_deb(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
  """Yields (path, content) of every file in a .deb, an ar archive with a tar inside."""
  content = path.read_bytes()
  if not content.startswith(b"!<arch>\n"):
    raise ValueError(f"{path} is neither a folder nor a .deb file.")
  start = 8
  while start < len(content):
    header = content[start : start + 60]
    name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
    start += 60
    if name.startswith("data.tar"):
      with tarfile.open(fileobj=io.BytesIO(content[start : start + size])) as archive:
        for member in archive:
          if file := archive.extractfile(member):  # None of a folder
            yield member.name.removeprefix("./"), file.read()
      return
    start += size + size % 2
  raise ValueError(f"{path} has no data.tar.")


def read_folder(path: pathlib.Path) -> Iterator[tuple[str, bytes]]:
  """Yields (path, content) of the used files in an extracted package."""
  for file in sorted(path.rglob("*")):
    name = file.relative_to(path).as_posix()
    if file.is_file() and ("usr/share/doc/" in name or "/images/land/" in name):
      yield name, file.read_bytes()


def read_package(path: pathlib.Path) -> Package:
  """Reads a .deb file or an extracted package.

  Raises:
    ValueError: it is no package, or lacks copyright file, changelog or photographs.
  """
  copyright_text = name = version = ""
  photographs = {}
  for member, content in read_folder(path) if path.is_dir() else read_deb(path):
    if re.fullmatch(r"usr/share/doc/[^/]+/copyright", member):
      copyright_text = content.decode()
    elif re.fullmatch(r"usr/share/doc/[^/]+/changelog\.Debian\.gz", member):
      first = gzip.decompress(content).decode().split("\n", 1)[0]
      name, version = member.split("/")[3], first.split("(")[1].split(")")[0]
    elif (parts := member.split("/"))[-3:-1] == ["images", "land"]:
      stem = parts[-1].removesuffix(".jpg").removesuffix("@2x")
      photographs[stem] = (member, content)
  if not (copyright_text and version and photographs):
    raise ValueError(f"{path} lacks a copyright file, a changelog or images/land.")
  return Package(name, version, copyright_text, photographs)


def parse_copyright(text: str) -> list[Stanza]:
  """Parses the `Files:` paragraphs of a machine-readable copyright file."""
  stanzas = []
  for paragraph in re.split(r"\n\s*\n", text):
    fields = dict(re.findall(r"^(\S+):((?:.*)(?:\n[ \t].*)*)", paragraph, re.MULTILINE))
    if "Files" not in fields:
      continue
    files = fields["Files"].strip()
    patterns = files.splitlines() if "\n" in fields["Files"] else [files]
    licence, *reason = fields["License"].strip().splitlines()
    remarks = " ".join([*reason, fields.get("Comment", "")])
    author = fields["Copyright"].strip()
    stanzas.append(
      Stanza(
        tuple(pattern.strip() for pattern in patterns),
        "not named" if author == "Various" else author,
        licence,
        source_of(remarks, author),
      )
    )
  return stanzas


def source_of(remarks: str, author: str) -> str:
  """Returns where a photograph was taken from: a site, an agency or its author."""
  if "Wikimedia" in remarks:
    return "commons.wikimedia.org"
  if found := re.search(r"Taken from (\S+?\.com)", remarks):
    return found[1]
  return "U.S. Geological Survey" if author == "USGS" else author


def rights(stem: str, stanzas: Sequence[Stanza]) -> Stanza | None:
  """Returns the stanza that applies to `images/land/<stem>.jpg`.

  A pattern that is the file's own name and a star goes first, else the last match as
  the format defines, where a pattern that ends in a digit and a star does not count.

  Returns:
    None where that leaves a pattern of a complete folder, but a pattern for another
    number matches too: `canyon0*` may or may not mean `canyon01.jpg`.
  """
  path, applies = f"images/land/{stem}.jpg", None
  specific = other_number = False
  for stanza in stanzas:
    for pattern in stanza.patterns:
      if pattern == f"images/land/{stem}*":
        return stanza
      if fnmatch.fnmatchcase(path, pattern):
        if re.search(r"\d\*$", pattern):
          other_number = True
        else:
          applies, specific = stanza, pattern not in FOLDERS
  return applies if specific or not other_number else None


def agreed_rights(packages: Sequence[Package]) -> dict[str, Stanza | None]:
  """Returns {stem: stanza} of all photographs of the first package.

  Raises:
    ValueError: the packages' copyright files give different licences.
  """
  first, *others = [parse_copyright(package.copyright) for package in packages]
  agreed = {stem: rights(stem, first) for stem in sorted(packages[0].photographs)}
  for other, (stem, stanza) in itertools.product(others, agreed.items()):
    found = rights(stem, other)
    if (found and found.licence) != (stanza and stanza.licence):
      raise ValueError(f"The copyright files disagree on the licence of {stem}.")
  return agreed


def select(agreed: Mapping[str, Stanza | None]) -> dict[str, Stanza]:
  """Returns {stem: stanza} of the photographs to embed."""
  return {
    stem: stanza
    for stem, stanza in agreed.items()
    if stanza is not None
    and stanza.licence in FREE
    and not stanza.source.startswith("morgue")
    and stem not in EXCLUDED
  }


def group_of(stem: str) -> str:
  """Returns the scene of a photograph, or its own name."""
  return next((scene for scene, stems in SCENES.items() if stem in stems), stem)


def check_groups(images: Mapping[str, Image.Image]) -> None:
  """Raises ValueError where near-duplicates are in different groups."""
  thumbnails = {}
  for stem, image in images.items():
    small = image.resize((48, 24), Image.Resampling.LANCZOS)
    pixels = np.asarray(small, np.float64)
    pixels = pixels - pixels.mean((0, 1))
    thumbnails[stem] = pixels / max(np.linalg.norm(pixels), 1e-9)
  for one, other in itertools.combinations(thumbnails, 2):
    alike = float(np.sum(thumbnails[one] * thumbnails[other]))
    if alike > NEAR_DUPLICATE and group_of(one) != group_of(other):
      raise ValueError(f"{one} and {other} are near-duplicates: put both in one scene.")


def encode(image: Image.Image) -> bytes:
  """Returns the photograph as WebP, `HEIGHT` pixels high."""
  width = round(image.width * HEIGHT / image.height)
  buffer = io.BytesIO()
  image.resize((width, HEIGHT), Image.Resampling.LANCZOS).save(
    buffer, "WEBP", quality=QUALITY, method=6
  )
  return buffer.getvalue()


def notice(rows: Sequence[Mapping[str, str]], packages: Sequence[Package]) -> str:
  """Returns the human-readable notice."""
  width = max(len(row["file"]) for row in rows)
  table = [
    f"{row['file']:{width}}  {row['licence']:13}  {row['author']} ({row['source']})"
    for row in rows
  ]
  return NOTICE.format(
    count=len(rows),
    packages=" and ".join(f"{package.name} {package.version}" for package in packages),
    height=HEIGHT,
    heading=f"{'file':{width}}  {'licence':13}  author (source)",
    table="\n".join(table),
  )


def build(packages: Sequence[Package], out: pathlib.Path) -> list[dict[str, str]]:
  """Writes photographs, manifest and notice; returns the manifest's rows.

  Raises:
    ValueError: licences disagree, near-duplicates are in different groups, nothing is
      left, or `out` has files that this script does not write.
  """
  selected = select(agreed_rights(packages))
  if not selected:
    raise ValueError("No photograph is in the public domain.")
  written = {"manifest.json", "NOTICE", *(f"{stem}.webp" for stem in selected)}
  out.mkdir(parents=True, exist_ok=True)
  if foreign := sorted({file.name for file in out.iterdir()} - written):
    raise ValueError(f"{out} has other files, {foreign[0]} first: remove them.")
  originals = {stem: packages[0].photographs[stem] for stem in selected}
  images = {
    stem: Image.open(io.BytesIO(content)).convert("RGB")
    for stem, (_, content) in originals.items()
  }
  check_groups(images)
  rows = []
  for stem, stanza in selected.items():
    webp = encode(images[stem])
    (out / f"{stem}.webp").write_bytes(webp)
    rows.append(
      {
        "file": f"{stem}.webp",
        "group": group_of(stem),
        "author": stanza.author,
        "source": stanza.source,
        "licence": stanza.licence,
        "original": originals[stem][0],
        "sha256": hashlib.sha256(webp).hexdigest(),
      }
    )
  manifest = {
    "packages": {package.name: package.version for package in packages},
    "height": HEIGHT,
    "quality": QUALITY,
    "encoder": f"libwebp {features.version('webp')}",
    "photographs": rows,
  }
  (out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
  (out / "NOTICE").write_text(notice(rows, packages))
  return rows


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "high_dpi", type=pathlib.Path, help="endless-sky-high-dpi: .deb file or folder"
  )
  parser.add_argument(
    "data", type=pathlib.Path, help="endless-sky-data: .deb file or folder"
  )
  parser.add_argument(
    "--out",
    type=pathlib.Path,
    default=DEFAULT_OUT,
    help="folder (default: %(default)s)",
  )
  options = parser.parse_args(arguments)
  try:
    packages = [read_package(path) for path in (options.high_dpi, options.data)]
    rows = build(packages, options.out)
  except (EOFError, OSError, ValueError, lzma.LZMAError, tarfile.TarError) as error:
    sys.exit(f"{parser.prog}: {error}")
  size = sum((options.out / row["file"]).stat().st_size for row in rows)
  print(f"{len(rows)} photographs, {size / 1e6:.2f} MB, in {options.out}")


if __name__ == "__main__":
  main()
