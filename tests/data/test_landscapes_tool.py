"""tools/landscapes.py: licences, selection, and a rebuild from small made packages."""

import gzip
import importlib.util
import io
import json
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

TOOL = pathlib.Path(__file__).parents[2] / "tools" / "landscapes.py"

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: A Programmer
License: GPL-3+

Files: images/land/*
Copyright: Various
License: public-domain
 Taken from morgue-file.com, a collection. (Exceptions noted below.)

Files: images/land/alps*
Copyright: B Walker (commons.wikimedia.org/wiki/User:Walker)
License: CC-BY-SA-3.0
Comment: Taken from Wikimedia commons.

Files: images/land/*-jo*
Copyright: Jo
License: CC-BY-SA-4.0

Files:
 images/land/canyon0*
 images/land/fields1*
 images/land/space2*
Copyright: Various
License: public-domain
 Taken from unsplash.com, a collection.

Files:
 images/land/earthrise*
 images/land/space*
Copyright: NASA
License: public-domain
 From NASA.

License: GPL-3+
 Text.
"""

EXPECTED = {  # stem: (licence, source), None = not clear
  "alps0": ("CC-BY-SA-3.0", "commons.wikimedia.org"),
  "canyon0": ("public-domain", "unsplash.com"),
  "canyon01": None,
  "earthrise": ("public-domain", "NASA"),
  "fields1": ("public-domain", "unsplash.com"),
  "fields10-jo": ("CC-BY-SA-4.0", "Jo"),
  "fields2": ("public-domain", "morgue-file.com"),
  "space2": ("public-domain", "unsplash.com"),
  "space3": ("public-domain", "NASA"),
}


@pytest.fixture(scope="module")
def tool():
  spec = importlib.util.spec_from_file_location("landscapes_tool", TOOL)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def members(name, copyright_text=COPYRIGHT, pixels=None):
  """Returns {path: content} of a made package."""
  rng = np.random.default_rng(0)
  files = {
    f"usr/share/doc/{name}/copyright": copyright_text.encode(),
    f"usr/share/doc/{name}/changelog.Debian.gz": gzip.compress(
      f"{name} (1.2-3) unstable; urgency=low\n".encode()
    ),
  }
  for stem in EXPECTED:
    buffer = io.BytesIO()
    colours = rng.integers(0, 256, (6, 12, 3), np.uint8) if pixels is None else pixels
    Image.fromarray(colours).resize((160, 80)).save(buffer, "JPEG")
    files[f"usr/share/games/plugins/images/land/{stem}@2x.jpg"] = buffer.getvalue()
  return files


def write_deb(path, files):
  """Writes an ar archive with control and data members, as dpkg-deb does."""
  data = io.BytesIO()
  with tarfile.open(fileobj=data, mode="w:xz") as archive:
    for name, content in files.items():
      member = tarfile.TarInfo(f"./{name}")
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  parts = {"debian-binary": b"2.0\n", "control.tar": b"odd", "data.tar.xz": None}
  with path.open("wb") as file:
    file.write(b"!<arch>\n")
    for name, content in parts.items():
      content = data.getvalue() if content is None else content
      file.write(
        f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
      )
      file.write(content + b"\n" * (len(content) % 2))
  return path


def write_folder(path, files):
  for name, content in files.items():
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_bytes(content)
  return path


def contents(folder):
  return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_licence_of_each_photograph_follows_the_closest_pattern(tool):
  stanzas = tool.parse_copyright(COPYRIGHT)
  found = {stem: tool.rights(stem, stanzas) for stem in EXPECTED}
  assert {
    stem: stanza and (stanza.licence, stanza.source) for stem, stanza in found.items()
  } == EXPECTED
  assert found["fields1"].author == "not named"
  assert found["alps0"].author.startswith("B Walker")


def test_packages_and_folders_give_the_same_files_again(tool, tmp_path, capsys):
  deb = write_deb(tmp_path / "a.deb", members("es-high-dpi"))
  folder = write_folder(tmp_path / "a", members("es-high-dpi"))
  data = write_folder(tmp_path / "data", members("es-data"))
  first, second = tmp_path / "first", tmp_path / "second"
  tool.main([str(deb), str(data), "--out", str(first)])
  tool.main([str(deb), str(data), "--out", str(first)])  # over its own files
  tool.main([str(folder), str(data), "--out", str(second)])
  assert capsys.readouterr().out.startswith("4 photographs, 0.")
  assert contents(first) == contents(second)
  manifest = json.loads((first / "manifest.json").read_text())
  assert manifest["packages"] == {"es-high-dpi": "1.2-3", "es-data": "1.2-3"}
  files = [row["file"] for row in manifest["photographs"]]
  # Not earthrise: it is excluded by name.
  assert files == ["canyon0.webp", "fields1.webp", "space2.webp", "space3.webp"]
  groups = {row["file"]: row["group"] for row in manifest["photographs"]}
  assert groups["space3.webp"] == "space-station"
  assert groups["canyon0.webp"] == "canyon0"
  for file in files:
    with Image.open(first / file) as image:
      assert image.size == (2 * tool.HEIGHT, tool.HEIGHT)
    assert file in (first / "NOTICE").read_text()


def test_bad_input_ends_with_one_line(tool, tmp_path):
  good = write_folder(tmp_path / "good", members("good"))
  out = tmp_path / "out"

  def error(first, second):
    with pytest.raises(SystemExit) as ended:
      tool.main([str(first), str(second), "--out", str(out)])
    message = str(ended.value.code)
    assert "\n" not in message
    return message

  assert "No such file" in error(tmp_path / "none.deb", good)
  (tmp_path / "text").write_text("no package")
  assert "neither a folder nor a .deb" in error(good, tmp_path / "text")
  (tmp_path / "empty").mkdir()
  assert "lacks a copyright file" in error(tmp_path / "empty", good)
  cut = write_deb(tmp_path / "cut.deb", members("cut"))
  cut.write_bytes(cut.read_bytes()[:900])
  assert error(cut, good)
  other = COPYRIGHT.replace("CC-BY-SA-4.0", "CC-BY-4.0")
  disagreeing = write_folder(tmp_path / "other", members("other", other))
  assert "disagree on the licence of fields10-jo" in error(good, disagreeing)
  pixels = np.arange(6 * 12 * 3, dtype=np.uint8).reshape(6, 12, 3)
  alike = write_folder(tmp_path / "alike", members("alike", pixels=pixels))
  assert "canyon0 and fields1 are near-duplicates" in error(alike, good)
  out.mkdir(exist_ok=True)
  (out / "mine.txt").touch()
  assert "has other files, mine.txt first" in error(good, good)
