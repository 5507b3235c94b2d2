"""Folders of pictures that a command makes from the pictures of another folder."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctx_encoder.data import files, sources, split
from ctx_encoder.data.paths import printable


def open_originals(option: str, path: str, output: Path) -> sources.Source:
  """Opens the folder of images that an option names.

  Raises:
    FileNotFoundError: there is no such folder, or no image in it.
    ValueError: it holds augmented copies, or the output folder lies in it.
  """
  root = Path(path).expanduser()
  if not root.is_dir():
    raise FileNotFoundError(f"--{option} {path}: there is no such folder.")
  if output.resolve().is_relative_to(root.resolve()):
    raise ValueError(f"--output must not be --{option} or a folder inside it.")
  source = sources.open_source("folder", path)
  if copies := [name for name in source.names if split.COPY.search(name)]:
    raise ValueError(
      f"--{option} holds augmented copies ({copies[0]}): name the folder of originals."
    )
  return source


def claim(
  output: Path,
  settings_file: str,
  settings: Mapping[str, Any],
  planned: set[str],
  *,
  force: bool | None = None,
) -> None:
  """Creates the output folder with a file of the settings.

  Args:
    output: the folder.
    settings_file: name of the file in it.
    settings: on which the pictures depend.
    planned: names of the pictures.
    force: keep other files, and delete pictures of other settings; None = the command
      has no such option.

  Raises:
    FileExistsError: the folder holds other files, or pictures of other settings.
  """
  found, saved = files.visible_files(output), output / settings_file
  text = json.dumps(settings, indent=1)
  others = sorted(found - planned - {settings_file})
  changed = bool(found) and not (saved.is_file() and saved.read_text() == text)
  if (changed or others) and not force:
    what = "files that were not made with these settings"
    if not changed:
      what = f"{len(others)} files that this call does not write, such as {others[0]}"
    instead = "" if force is None else ", or add --force to write into this one"
    raise FileExistsError(
      f"--output {output} holds {what}: name an empty folder{instead}."
    )
  for name in found if changed else ():
    if split.COPY.sub("", name) in planned:
      (output / name).unlink()
  files.write(saved, text)


def end(path: str, count: int, made: int, skipped: Mapping[str, str]) -> None:
  """Prints which images could not be used.

  Args:
    path: folder of the originals.
    count: their number.
    made: number of pictures in the output folder.
    skipped: {image: why it could not be used}.

  Raises:
    ValueError: none could be used.
  """
  for name, why in skipped.items():
    print(printable(f"skipped  {name}: {why}"), file=sys.stderr)
  if not made:
    raise ValueError(f"None of the {count} images in {path} can be used.")
