"""Pages that MkDocs makes from the checkout: README and others, one for each module.

A hook of `mkdocs.yml`. A module's page is its docstring and those of what it defines.
"""

import ast
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parent.parent
PAGES = {
  "index.md": "README.md",
  "BUILD.md": "BUILD.md",
  "BENCHMARKS.md": "BENCHMARKS.md",
  "EXPERIMENTS.md": "EXPERIMENTS.md",
}
ROOMS = ("losses", "metrics", "masks", "models", "training", "inpaint")


def on_config(config):
  """Adds the modules to the navigation."""
  config.nav[-1] = {
    "Reference": [
      {room: [{_title(page): page} for page in _modules(room)]} for room in ROOMS
    ]
  }
  return config


def on_files(files, config):
  """Adds the pages of the checkout and of the modules."""
  for page, source in PAGES.items():
    text = (ROOT / source).read_text()
    files.append(File.generated(config, page, content=text))
  for room in ROOMS:
    for page, module in _modules(room).items():
      content = f"# {module.removeprefix('ctx_encoder.')}\n\n::: {module}\n"
      if page.endswith("/index.md"):
        content += "    options: {members: false}\n\n" + _table(room)
      files.append(File.generated(config, page, content=content))
  return files


def on_page_markdown(markdown, page, **_):
  """Turns links of the checkout into links between pages."""
  if page.file.src_uri.startswith("reference/"):
    return markdown
  link = r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)"
  return re.sub(link, _relinked, markdown)


def _modules(room):
  """Returns {page: module} of a room, its `__init__` first."""
  folder = ROOT / "ctx_encoder" / room
  found = {f"reference/{room}/index.md": f"ctx_encoder.{room}"}
  for path in sorted(folder.rglob("*.py"), key=lambda path: (len(path.parts), path)):
    parts = path.relative_to(folder).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    if name and not any(part.startswith("_") for part in name.split(".")):
      page = f"reference/{room}/{name}.md"
      found[page] = f"ctx_encoder.{room}.{name}"
  return found


def _table(room):
  """Returns a table of a room's modules and the first line of each."""
  rows = ["| module | |", "|---|---|"]
  for page, module in list(_modules(room).items())[1:]:
    path = ROOT / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    lead = (ast.get_docstring(ast.parse(source.read_text())) or "").split("\n\n")[0]
    link = f"[{_title(page)}]({pathlib.PurePath(page).name})"
    rows.append(f"| {link} | {' '.join(lead.split())} |")
  return "\n".join(rows) + "\n"


def _title(page):
  name = pathlib.PurePath(page).stem
  return "Overview" if name == "index" else name


def _relinked(match):
  """Turns a link within the checkout into one between pages, or into its text."""
  label, target, place = match.groups(default="")
  target = re.sub(r"^(\.\./|docs/)", "", target).replace("README.md", "index.md")
  known = target in PAGES or (ROOT / "docs" / target).exists()
  return f"[{label}]({target}{place})" if known else label
