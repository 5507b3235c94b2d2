"""Folders of pictures that a command fills, and goes on filling when called again."""

import collections
import pathlib
from collections.abc import Sequence


def write(path: pathlib.Path, data: bytes) -> None:
  """Writes a file in one move, so that an interrupted call leaves none half written."""
  path.parent.mkdir(parents=True, exist_ok=True)
  new = path.with_name(f".{path.name}.new")
  new.write_bytes(data)
  new.replace(path)


def files(folder: pathlib.Path) -> set[str]:
  """Returns the files in a folder and below it, but the hidden ones."""
  return {
    file.relative_to(folder).as_posix()
    for file in folder.rglob("*")
    if file.is_file() and not file.name.startswith(".")
  }


def stems(names: Sequence[str]) -> list[str]:
  """Returns names without extension; those that differ in it alone keep theirs."""
  bare = [str(pathlib.PurePosixPath(name).with_suffix("")) for name in names]
  often = collections.Counter(stem.lower() for stem in bare)
  return [
    stem if often[stem.lower()] == 1 else name
    for stem, name in zip(bare, names, strict=True)
  ]
