"""The Python of README, BUILD.md and docs/ runs as it is written."""

import importlib.util
import json
import pathlib
import re
import subprocess
import sys

import jax.numpy as jnp
import pytest
from PIL import Image

from ctx_encoder import losses, metrics
from ctx_encoder.data import landscapes

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "losses.md").read_text()
_BLOCK = re.compile(r"^#+ ([^\n]+)\n|^```python\n(.*?)^```", re.M | re.S)

# Blocks that a test of their room runs, in small.
ELSEWHERE = {"README.md: Your own network"}  # tests/training/test_fit.py


def blocks():
  """Yields (file: heading, code) of every block of Python."""
  pages = [
    ROOT / "README.md",
    ROOT / "BUILD.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
  ]
  for page in pages:
    heading = ""
    for match in _BLOCK.finditer(page.read_text()):
      heading = match[1] or heading
      if match[2]:
        yield f"{page.relative_to(ROOT)}: {heading}", match[2]


def parameters():
  for title, code in blocks():
    # Those that load or train a network compile for many seconds.
    slow = "Inpainter" in code or "training" in code
    marks = [pytest.mark.slow] if slow else []
    if title not in ELSEWHERE:
      yield pytest.param(title, code, id=title, marks=marks)


def run(code, name):
  names = {"__name__": "__main__"}
  exec(compile(code, name, "exec"), names)
  return names


@pytest.mark.parametrize(("title", "code"), list(parameters()))
def test_blocks_run(title, code, tmp_path, monkeypatch):
  for library in re.findall(r"(?m)^(?:import|from) (\w+)", code):
    if importlib.util.find_spec(library) is None:
      pytest.skip(f"{library} is not installed")
  monkeypatch.chdir(tmp_path)
  photo = landscapes.read(landscapes.names()[0])
  Image.fromarray(photo).save("photo.jpg")
  mask = Image.new("L", photo.shape[1::-1])
  mask.paste(255, (20, 20, 60, 70))
  mask.save("mask.png")
  names = run(code, title)
  if title.startswith("docs/losses.md: In "):
    total = names.get("total", names.get("logged", {}).get("loss"))
    assert jnp.isfinite(total)
    # Shorter than a step of what people paste into their editor.
    assert len(code.splitlines()) < 60


def test_the_blocks_are_found():
  titles = [title for title, _ in blocks()]
  assert {"README.md: Use the parts", *ELSEWHERE} <= set(titles)
  for name in ("plain JAX", "Equinox", "Flax NNX"):
    assert f"docs/losses.md: In {name}" in titles


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  notebook = json.loads((ROOT / "docs" / "tour.ipynb").read_text())
  cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
  assert len(notebook["cells"]) == 10
  names = run("\n".join(cells), "docs/tour.ipynb")
  assert names["outcome"].reason == "finished"
  assert jnp.isfinite(names["total"])
  holes = names["holes"]
  assert (names["filled"] == names["shown"])[jnp.repeat(holes, 3, 3) == 0].all()


@pytest.mark.parametrize("room", [losses, metrics])
def test_every_public_function_is_in_a_table(room):
  for name in room.__all__:
    if callable(thing := getattr(room, name)) and name[0].islower():
      assert f"`{name}(" in TEXT or f"`{name}`" in TEXT, name
      assert thing.__doc__, name


@pytest.mark.slow
def test_the_pages_are_built_without_warnings(tmp_path):
  if missing := [x for x in ("material", "mkdocstrings") if not _is_installed(x)]:
    pytest.skip(f"not installed, of the extra `docs`: {', '.join(missing)}")
  build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
  built = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
  assert built.returncode == 0, built.stderr
  page = (tmp_path / "reference/losses/adversarial.html").read_text()
  assert "L = -(1 - s) log D(real)" in page
  for page in tmp_path.rglob("*.html"):  # which ask no other host for anything
    html = page.read_text()
    assert not re.search(r'(src|rel="stylesheet" href)="(https?:)?//', html), page


def _is_installed(name):
  return importlib.util.find_spec(name) is not None
