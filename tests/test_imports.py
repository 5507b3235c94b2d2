"""Which room may import which: each only those above it, and what an import loads."""

import ast
import functools
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# One floor a line, from the top: its rooms, and the libraries that they may import. A
# room imports its own modules and the rooms on floors above its own.
FLOORS = """
  pixels shapes xla distributed morphology : jax numpy
  augment                : jax dm_pix
  config                 :
  masks                  : jax numpy
  data                   : numpy PIL tensorflow tensorflow_datasets google tqdm
  models                 : jax flax numpy h5py safetensors
  losses                 : jax
  metrics                : jax numpy scipy
  evaluation             : jax numpy PIL cv2 skimage matplotlib
  training               : jax flax numpy optax orbax tensorboard tqdm
  inpaint                : jax flax numpy PIL cv2 scipy tensorflow onnx
  apps                   : jax numpy scipy optax PIL jinja2 markupsafe tqdm
                           fastapi pydantic starlette uvicorn
  configs launch         : absl jax ml_collections
"""

# Inside apps/ only these import other apps.
SHARED_APPS = {"cli", "commands", "runs"}

# Each takes seconds to import: only the functions that need it do.
LAZY = {"cv2", "dm_pix", "h5py", "jinja2", "keras", "matplotlib", "safetensors"}
LAZY |= {"onnx", "skimage", "tensorboard", "tensorflow", "tensorflow_datasets"}


@functools.cache
def floors():
  """Returns {room: (floor, libraries)}."""
  rows = FLOORS.replace("\n" + " " * 20, " ").strip().splitlines()
  found = {}
  for floor, row in enumerate(rows):
    rooms, libraries = row.split(":")
    found |= {room: (floor, set(libraries.split())) for room in rooms.split()}
  return found


@functools.cache
def modules():
  """Returns {dotted name: path} of every module."""
  paths = [*(ROOT / "ctx_encoder").rglob("*.py"), *(ROOT / "configs").glob("*.py")]
  named = {}
  for path in (*paths, ROOT / "launch.py"):
    parts = path.relative_to(ROOT).with_suffix("").parts
    named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
  return named


def room(module):
  """Returns the room that a module of ours is in; "" for the package itself."""
  top, *inner = module.split(".")
  return "".join(inner[:1]) if top == "ctx_encoder" else top


def app(module):
  return "".join(module.split(".")[2:3])


@functools.cache
def imports(module):
  """Returns [(imported module, whether at top level)] of a module."""
  tree = ast.parse(modules()[module].read_text())
  inside = {
    id(node)
    for function in ast.walk(tree)
    if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for node in ast.walk(function)
  }
  found = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{module}: relative import, line {node.lineno}"
      names = [_resolve(node.module, alias.name) for alias in node.names]
    else:
      continue
    found += [(name, id(node) not in inside) for name in names]
  return found


def _resolve(package, name):
  """`from a import b` imports a.b where that is a module of ours, else a."""
  return f"{package}.{name}" if f"{package}.{name}" in modules() else package


@pytest.mark.parametrize("module", modules())
def test_a_room_imports_only_what_stands_above_it(module):
  home = room(module)
  if not home:
    assert imports(module) == []
    return
  floor, libraries = floors()[home]
  for name, at_top in imports(module):
    top = name.partition(".")[0]
    if name in modules() or top == "ctx_encoder":
      assert room(name) in {"", home} or floors()[room(name)][0] < floor, name
    elif top not in sys.stdlib_module_names:
      assert top in libraries, name
      assert not (at_top and top in LAZY), f"{name} at top level"


def test_every_library_in_the_list_is_used():
  used = {home: set() for home in floors()}
  for module in modules():
    if room(module):
      used[room(module)] |= {name.partition(".")[0] for name, _ in imports(module)}
  rows = {}
  for home, (floor, libraries) in floors().items():
    rows.setdefault(floor, (libraries, set()))[1].update(used[home])
  for libraries, imported in rows.values():
    assert not libraries - imported


def test_modules_import_each_other_in_no_circle():
  graph = {
    module: {name for name, _ in imports(module) if name in modules()}
    for module in modules()
  }
  graphlib.TopologicalSorter(graph).prepare()


def test_apps_do_not_import_each_other():
  for module in modules():
    if module.startswith("ctx_encoder.apps.") and app(module) not in SHARED_APPS:
      others = {app(name) for name, _ in imports(module) if room(name) == "apps"}
      assert others <= {"", "runs", app(module)}, module


def test_the_package_holds_few_loose_modules_and_no_long_ones():
  package = ROOT / "ctx_encoder"
  assert len(list(package.glob("[!_]*.py"))) <= 6
  lengths = {path: len(path.read_text().splitlines()) for path in modules().values()}
  assert not {path: length for path, length in lengths.items() if length > 400}


def test_functions_are_short():
  for path in (ROOT / "ctx_encoder").rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def loaded_by(statement):
  """Returns the top-level modules that a statement loads in a new Python."""
  result = subprocess.run(
    [sys.executable, "-c", f"{statement}; import sys; print(*sys.modules)"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  return {name.partition(".")[0] for name in result.stdout.split()}


FRAMEWORKS = LAZY | {"jax", "flax", "optax", "orbax", "dm_pix"}
FRAMEWORKS |= {"ml_collections", "absl", "PIL", "tqdm"}


@pytest.mark.parametrize(
  ("statement", "may_load"),
  [
    ("import ctx_encoder", set()),
    ("import ctx_encoder.apps.cli", set()),
    ("import ctx_encoder.training.history", {"PIL"}),
    ("from ctx_encoder import losses", {"jax"}),
    ("from ctx_encoder import masks, metrics, pixels", {"jax"}),
    ("from ctx_encoder import config", set()),
    ("from ctx_encoder import data", {"PIL"}),
    ("from ctx_encoder.evaluation import baselines", set()),
    ("from ctx_encoder.evaluation import figures", {"PIL"}),
    ("import ctx_encoder.inpaint", {"jax", "flax", "absl", "PIL"}),
  ],
)
def test_what_an_import_loads(statement, may_load):
  assert loaded_by(statement) & FRAMEWORKS <= may_load


def test_a_training_step_needs_only_the_base_dependencies():
  """dm_pix, of the extra `train`, is for augmentation of colours."""
  extras = ["dm_pix", "orbax", "ml_collections", "PIL", "scipy.optimize"]
  loaded_by(
    f"import sys; sys.modules |= dict.fromkeys({extras});"
    " from ctx_encoder.training import inference, objective, step"
  )


def test_networks_and_trainer_load_nothing_heavy():
  assert loaded_by("from ctx_encoder import models").isdisjoint(LAZY | {"orbax"})
  assert loaded_by("import ctx_encoder.training.trainer").isdisjoint(LAZY)
  assert loaded_by("import launch").isdisjoint(LAZY | {"jax"})
