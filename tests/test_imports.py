"""Who may import whom: the table of rooms, and what importing a room loads."""

import ast
import functools
import graphlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Room: the libraries that it may import, and after the colon the other rooms. A room is
# a module or a package of ctx_encoder with all its modules, or what lies beside it.
TABLE = """
  morphology          jax
  losses              jax numpy : morphology
  masks               jax numpy
  metrics             jax numpy : losses
  weights             numpy h5py safetensors : torch_state_dict
  torch_state_dict    numpy
  intervals           numpy
  outputs
  lbfgs               jax optax
  stylize             jax numpy : compiler lbfgs losses pixels
  nearest             jax numpy
  pixels              jax
  winograd            jax numpy
  conv                jax : winograd
  compiler            jax
  sharding            jax numpy
  augment             jax dm_pix
  models              jax flax : conv
  state               jax flax optax : models
  optimizer           jax optax
  task                jax : losses masks augment pixels
  inference           jax : compiler models pixels task
  step                jax optax : losses masks augment metrics pixels models state task

  data                numpy PIL tensorflow tensorflow_datasets google tqdm
  record              jax
  checkpoint          jax orbax : record
  history             tensorboard
  figures             numpy PIL matplotlib
  interruption
  workdir
  huge_pages
  baselines           numpy cv2 skimage

  config              ml_collections
  config_file         : config
  build               jax numpy optax ml_collections
                      : losses masks augment models optimizer state step task weights
  inputs              jax numpy ml_collections : data sharding
  trained             jax ml_collections : build checkpoint config models state task
  keras_weights       numpy flax h5py : models
  export              jax numpy tensorflow : inference outputs trained
  feed                jax numpy ml_collections : compiler data sharding state step
  evaluate            jax numpy : baselines data metrics pixels sharding
  probe               numpy scipy
  features            jax numpy : augment compiler data models pixels task
  comparison          jax numpy : augment data intervals masks metrics pixels
  perceptual          jax numpy : comparison intervals metrics models pixels weights
  loop                jax numpy ml_collections tqdm
                      : checkpoint data evaluate feed figures history interruption
                        sharding state
  trainer             jax ml_collections
                      : build checkpoint compiler config evaluate feed history inputs
                        interruption loop sharding state step workdir

  inpaint             jax numpy PIL scipy : data inference trained

  report              jax numpy PIL matplotlib tqdm ml_collections
                      : build comparison config data history intervals masks nearest
                        trained

  demo                jax numpy PIL fastapi pydantic starlette uvicorn
                      : data inpaint masks

  cli                 : commands
  commands.augment    jax numpy PIL tqdm : config data augment outputs
  commands.config     : config
  commands.crosseval  : comparison intervals commands.evaluate
  commands.data       numpy : data
  commands.demo       numpy : compiler demo inpaint
  commands.evaluate   jax numpy tqdm
                      : baselines comparison data inference masks nearest perceptual
                        trained
  commands.features   numpy tqdm : data features trained
  commands.probe      numpy tqdm
                      : commands.evaluate commands.features comparison data features
                        intervals probe trained
  commands.export     : export trained
  commands.export_keras : keras_weights trained
  commands.import_keras jax
                      : build checkpoint config config_file keras_weights state
                        weights workdir
  commands.report     jax numpy
                      : baselines commands.evaluate comparison data figures masks report
                        trained
  commands.weights    tqdm
  commands.stylize    jax numpy PIL tqdm
                      : data losses models outputs stylize weights
  commands.inpaint    numpy PIL tqdm : compiler figures inpaint outputs
  commands.sweep      : comparison compiler config config_file evaluate trainer
  commands.masks      jax numpy : data figures masks
  configs             : config
  launch              absl jax ml_collections : compiler config huge_pages trainer
"""

# Each takes seconds to import: only the functions that need it do.
LAZY = {"cv2", "h5py", "keras", "matplotlib", "safetensors", "skimage"}
LAZY |= {"tensorboard", "tensorflow", "tensorflow_datasets"}


@functools.cache
def table():
  """Returns {room: (libraries, rooms)}."""
  rows, text = {}, ""
  for line in TABLE.splitlines():
    if line.startswith("  ") and line[2] != " ":
      text = line
    else:
      text += " " + line
    if text.strip():
      left, _, rooms = text.partition(":")
      name, *libraries = left.split()
      rows[name] = set(libraries), set(rooms.split())
  return rows


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
  """Returns the room that a module of ours is in; "" for the packages themselves."""
  top, *inner = module.split(".")
  if top != "ctx_encoder":
    return top
  return ".".join(inner[: 2 if inner[:1] == ["commands"] else 1])


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
def test_imports_are_in_the_table(module):
  home = room(module)
  if home in ("", "commands"):  # the packages themselves: empty but for a docstring
    assert imports(module) == []
    return
  assert home in table(), f"{home} has no row in the table"
  libraries, rooms = table()[home]
  for name, at_top in imports(module):
    top = name.partition(".")[0]
    if name in modules() or top == "ctx_encoder":
      assert room(name) in {"", home, *rooms}, f"{module} imports {name}"
    elif top not in sys.stdlib_module_names:
      assert top in libraries, f"{module} imports {name}"
      assert not (at_top and top in LAZY), f"{module} imports {name} at top level"


def test_the_table_allows_no_more_than_is_so():
  used = {name: (set(), set()) for name in table()}
  for module in modules():
    if (home := room(module)) in used:
      for name, _ in imports(module):
        top = name.partition(".")[0]
        if name in modules():
          used[home][1].add(room(name) or home)
        elif top not in sys.stdlib_module_names:
          used[home][0].add(top)
  used["cli"][1].add("commands")  # by importlib
  assert {name for name in table() if name not in map(room, modules())} == set()
  for name, (libraries, rooms) in table().items():
    unused = libraries - used[name][0] | rooms - used[name][1]
    assert not unused, f"{name} does not import {unused}"


def test_there_are_no_cycles():
  graph = {name: rooms - {"commands"} for name, (_, rooms) in table().items()}
  graphlib.TopologicalSorter(graph).prepare()
  inner = {
    module: {name for name, _ in imports(module) if name in modules()}
    for module in modules()
  }
  graphlib.TopologicalSorter(inner).prepare()


def test_only_training_and_judging_see_both_data_and_checkpoints():
  def reach(room):
    return {room}.union(*map(reach, table()[room][1] - {"commands"}))

  both = {name for name in table() if {"data", "checkpoint"} <= reach(name)}
  assert both == {"loop", "trainer", "launch", "commands.sweep", "report"} | {
    "commands.evaluate",
    "commands.crosseval",
    "commands.features",
    "commands.probe",
    "commands.report",
    "inpaint",  # for its decoder
    "commands.inpaint",
    "demo",
    "commands.demo",
  }


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
    ("import ctx_encoder.cli", set()),
    ("import ctx_encoder.history", set()),
    ("from ctx_encoder import losses", {"jax"}),
    ("from ctx_encoder import masks, metrics, pixels, conv", {"jax"}),
    ("from ctx_encoder import config", {"ml_collections", "absl"}),
    ("from ctx_encoder import data", {"PIL"}),
    ("from ctx_encoder import baselines", set()),
    ("from ctx_encoder import weights", set()),
    ("from ctx_encoder import figures", {"PIL"}),
  ],
)
def test_what_an_import_loads(statement, may_load):
  assert loaded_by(statement) & FRAMEWORKS <= may_load


def test_networks_and_trainer_load_nothing_heavy():
  assert loaded_by("from ctx_encoder import models").isdisjoint(LAZY | {"orbax"})
  assert loaded_by("import ctx_encoder.trainer").isdisjoint(LAZY)
  assert loaded_by("import launch").isdisjoint(LAZY | {"jax"})
