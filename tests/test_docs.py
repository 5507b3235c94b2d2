"""The examples of the documentation run as they are written."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import jax.numpy as jnp
import pytest

from ctx_encoder import losses, metrics

DOCS = pathlib.Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "losses.md").read_text()
EXAMPLES = dict(
  re.findall(r"^## In ([^\n]+)\n+```python\n(.*?)^```", TEXT, re.M | re.S)
)


def test_there_are_three_examples():
  assert list(EXAMPLES) == ["plain JAX", "Equinox", "Flax NNX"]


@pytest.mark.parametrize("title", EXAMPLES)
def test_examples_train(title):
  if title == "Equinox":
    pytest.importorskip("equinox")
  names = {}
  exec(compile(EXAMPLES[title], f"docs/losses.md: In {title}", "exec"), names)
  total = names.get("total", names.get("logged", {}).get("loss"))
  assert jnp.isfinite(total)
  # Shorter than a step of what people paste into their editor.
  assert len(EXAMPLES[title].splitlines()) < 60


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
  command = [
    sys.executable,
    "-m",
    "mkdocs",
    "build",
    "--strict",
    "--site-dir",
    tmp_path,
  ]
  built = subprocess.run(
    command, cwd=DOCS.parent, capture_output=True, text=True, check=False
  )
  assert built.returncode == 0, built.stderr
  page = (tmp_path / "reference/losses/adversarial.html").read_text()
  assert "L = -(1 - s) log D(real)" in page
  for page in tmp_path.rglob("*.html"):  # which ask no other host for anything
    html = page.read_text()
    assert not re.search(r'(src|rel="stylesheet" href)="(https?:)?//', html), page


def _is_installed(name):
  return importlib.util.find_spec(name) is not None
