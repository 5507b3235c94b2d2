"""Weights to and from Keras models built from the report's tables."""

import functools
import json
import zipfile

import jax
import numpy as np
import pytest
import tiny
from command import call
from keras_networks import NETWORKS, randomize

from ctx_encoder.apps.commands import export_keras, import_keras
from ctx_encoder.models import layers as our_layers
from ctx_encoder.models import monet, weights
from ctx_encoder.models.weights import keras as keras_weights
from ctx_encoder.training import trained, trainer

pytest.importorskip("h5py")
# A warning of Keras about TensorFlow's variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

slow = functools.partial(pytest.param, marks=pytest.mark.slow)

# Narrow; at 128 Monet has more than ten BatchNorm layers, whose names Keras counts.
SHAPES = {"photos": (1 / 16, 64), "monet": (1 / 16, 128)}


@pytest.fixture(scope="module")
def keras():
  pytest.importorskip("tensorflow")
  return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def models(keras):
  """Keras models with random weights and layer numbers, and an optimizer's state."""
  made = {}
  for name, (width, size) in SHAPES.items():
    keras.layers.Conv2D(1, 1)  # so that no name begins at 0
    model = NETWORKS[name](keras, width, size)
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    randomize(model, np.random.default_rng(0))
    made[name] = model
  return made


def fields(name):
  width, size = SHAPES[name]
  return {
    "data__image_size": size,
    "model__width": width,
    "model__generator": name,
    "discriminator__width": 1 / 16,
  }


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
  """A work directory of ours for each network."""
  root = tmp_path_factory.mktemp("runs")
  return {
    name: tiny.untrained_run(root / name, 5000, **fields(name)) for name in SHAPES
  }


def import_arguments(name, file, workdir, **changes):
  """Writes a configuration of that network; returns the command's arguments."""
  config = workdir.parent / f"{name}_config.py"
  config.write_text(
    "import tiny\n\n\ndef get_config(variant=''):\n"
    f"  return tiny.config(**{ {**fields(name), **changes}!r})\n"
  )
  return (file, "--config", config, "--workdir", workdir)


@functools.partial(jax.jit, static_argnums=0)
def infer(generator, variables, images):
  return generator.apply(variables, images)


def check(model, keras_model):
  size = model.view.image_size
  images = np.float32(np.random.default_rng(1).uniform(-1, 1, (3, size, size, 3)))
  expected = keras_model(images, training=False).numpy()
  assert 0.05 < expected.std() < 0.95  # neither constant nor saturated
  found = infer(model.generator, model.variables, images)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
  ("name", "suffix"),
  [
    ("photos", ".h5"),
    *[slow(*case) for case in [("photos", ".weights.h5"), ("monet", ".weights.h5")]],
    slow("monet", ".h5"),
  ],
)
def test_keras_loads_what_is_exported(
  keras, models, workdirs, tmp_path, capsys, name, suffix
):
  path = tmp_path / "new" / f"ours{suffix}"
  for _ in range(2):  # the second replaces the first
    assert call(export_keras, "--workdir", workdirs[name], "--output", path) == 0
  model = trained.load(workdirs[name])
  theirs = NETWORKS[name](keras, *SHAPES[name])
  theirs.load_weights(path)
  check(model, theirs)
  # And the model whose code is printed.
  printed = capsys.readouterr().out.rpartition("A model that loads it:\n")[2]
  assert "x / 127.5 - 1" in printed
  names = {}
  exec(compile(printed, "printed", "exec"), names)
  check(model, names["model"])
  kinds = [type(layer) for layer in theirs.layers]
  assert [type(layer) for layer in names["model"].layers] == kinds


def test_resize_decoders_equal_keras(keras, tmp_path):
  settings = our_layers.Settings(width=1 / 32)
  generator = monet(16, upsample="resize", settings=settings)
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(
    generator.init, jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32)
  )

  def drawn(leaf):
    if len(leaf.shape) == 1:  # biases, and scales and variances, which are positive
      return np.float32(rng.uniform(0.2, 0.6, leaf.shape))
    summed = np.prod(leaf.shape[:-1])
    return np.float32(rng.normal(0, summed**-0.5, leaf.shape))

  variables = jax.tree.map(drawn, shapes)
  layers, path = keras_weights.table(generator, shapes["params"]), tmp_path / "a.h5"
  keras_weights.write(path, layers, variables)
  scope = {}
  exec(keras_weights.code(layers, (16, 16, 3), str(path)), scope)
  images = np.float32(rng.uniform(-1, 1, (2, 16, 16, 3)))
  expected = scope["model"](images, training=False).numpy()
  found = infer(generator, variables, images)
  assert expected.std() > 0.01
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
  read, _ = keras_weights.read(weights.load(path), layers, shapes)
  jax.tree.map(np.testing.assert_array_equal, read, variables)


@pytest.mark.parametrize(
  ("name", "file"),
  [
    ("photos", "m.keras"),
    ("monet", "m.weights.h5"),
    *[slow("photos", file) for file in ("m.weights.h5", "m.h5", "whole.h5")],
    *[slow("monet", file) for file in ("m.keras", "m.h5", "whole.h5")],
  ],
)
def test_what_keras_saves_is_imported(models, tmp_path, capsys, name, file):
  path, theirs = tmp_path / file, models[name]
  if file in ("m.keras", "whole.h5"):
    theirs.save(path)
  elif file == "m.weights.h5":
    theirs.save_weights(path)
  else:
    save_listed(theirs, path)
  workdir = tmp_path / "run"
  assert call(import_keras, *import_arguments(name, path, workdir)) == 0
  out = capsys.readouterr().out
  model = trained.load(workdir)
  check(model, theirs)
  assert model.config.model.generator == name
  # The matches, in the order of the layers.
  first, *_ = (layer for layer in theirs.layers if layer.weights)
  _, headings, row, *_ = out.splitlines()
  assert headings.startswith("layer of the file  ")
  assert row.split()[:2] == [first.name, "encoder/stage1/conv"]
  assert model.step == import_keras.STEP


def save_listed(model, path):
  """Writes weights as Keras 2 did by `save_weights`."""
  legacy = pytest.importorskip("keras.src.legacy.saving.legacy_h5_format")
  h5py = pytest.importorskip("h5py")
  with h5py.File(path, "w") as file:
    legacy.save_weights_to_hdf5_group(file, model)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".weights.h5", slow(".h5")])
def test_export_and_import_change_nothing(workdirs, tmp_path, suffix):
  path, workdir = tmp_path / f"ours{suffix}", tmp_path / "run"
  call(export_keras, "--workdir", workdirs["monet"], "--output", path)
  arguments = import_arguments("monet", path, workdir, ema_decay=0.9)
  assert call(import_keras, *arguments) == 0
  there, back = trained.load(workdirs["monet"]), trained.load(workdir)
  jax.tree.map(np.testing.assert_array_equal, back.variables, there.variables)


@pytest.mark.slow
def test_an_imported_model_can_be_trained(workdirs, tmp_path, photographs):
  path, workdir = tmp_path / "ours.weights.h5", tmp_path / "run"
  small = {"data__image_size": 16, "data__path": str(photographs)}
  first = tiny.untrained_run(tmp_path / "first", 5000, **fields("photos") | small)
  call(export_keras, "--workdir", first, "--output", path)
  assert call(import_keras, *import_arguments("photos", path, workdir, **small)) == 0
  changes = fields("photos") | small | {"num_steps": import_keras.STEP + 2}
  outcome = trainer.train(tiny.config(**changes), workdir, say=lambda line: None)
  assert outcome.step == import_keras.STEP + 2
  before, after = trained.load(first), trained.load(workdir, step=outcome.step)
  change = jax.tree.map(
    lambda a, b: float(np.abs(a - b).max()), after.variables, before.variables
  )
  largest = max(jax.tree.leaves(change["params"]))
  assert 0 < largest < 0.01  # two steps of Adam
  stats = jax.tree.leaves(change["batch_stats"])
  assert 0 < max(stats) < 2  # of a batch of its own, and not divided by nearly 0


def test_the_archive_is_not_run(models, tmp_path):
  models["photos"].save(tmp_path / "m.keras")
  changed = tmp_path / "changed.keras"
  with (
    zipfile.ZipFile(tmp_path / "m.keras") as old,
    zipfile.ZipFile(changed, "w") as new,
  ):
    for name in old.namelist():
      content = old.read(name)
      if name == "config.json":
        content = json.dumps({"class_name": "Lambda", "module": "nowhere"})
      new.writestr(name, content)
  expected, found = weights.load(tmp_path / "m.keras"), weights.load(changed)
  assert list(found) == list(expected)
  assert not any(name.startswith("adam") for name in found)
  with zipfile.ZipFile(tmp_path / "empty.keras", "w") as empty:
    empty.writestr("config.json", "{}")
  with pytest.raises(ValueError, match=r"no item named 'model\.weights\.h5'"):
    weights.load(tmp_path / "empty.keras")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"model__width": 0.125},
      "Layer conv2d of the file does not match encoder/stage1/conv: its kernel is"
      " (11, 11, 3, 6), not (11, 11, 3, 12).",
    ),
    (
      {"model__depth": 1},
      "Layer conv2d_4 of the file does not match encoder/stage5/conv: its kernel is"
      " (3, 3, 24, 16), not (3, 3, 24, 24).",
    ),
    (
      {"data__image_size": 128},
      "Layer conv2d_transpose_3 of the file does not match decoder/stage4/conv: its",
    ),
    slow({"model__bottleneck": "channelwise"}, "model.bottleneck=channelwise"),
    ({"model__noise_dim": 2}, "model.noise_dim"),
    slow({"model__generator": "monet", "model__skips": True}, "model.skips"),
    ({"masks__fill": "mean"}, "--set masks.fill=#rrggbb"),
    ({"batch_size": 0}, "'batch_size' must be within"),
  ],
)
def test_mismatches_are_named(workdirs, tmp_path, capsys, changes, message):
  path, workdir = tmp_path / "ours.weights.h5", tmp_path / "run"
  call(export_keras, "--workdir", workdirs["photos"], "--output", path)
  capsys.readouterr()
  assert call(import_keras, *import_arguments("photos", path, workdir, **changes)) == 1
  error = capsys.readouterr().err.strip()
  assert message in error
  assert error.startswith("ctx-encoder import-keras: ")
  assert "\n" not in error
  assert not workdir.exists()


@pytest.mark.slow
def test_surplus_and_unknown_layers_are_named(workdirs, tmp_path, capsys):
  import h5py

  path = tmp_path / "ours.weights.h5"
  call(export_keras, "--workdir", workdirs["photos"], "--output", path)
  capsys.readouterr()
  arguments = import_arguments("photos", path, tmp_path / "run")
  with h5py.File(path, "a") as file:
    file["layers/dropout/vars/0"] = np.zeros(2, np.uint32)  # a seed, which is no weight
    file["layers/dense_1/vars/0"] = np.zeros((2, 3), np.float32)
    file["layers/dense_1/vars/1"] = np.zeros(3, np.float32)
  assert call(import_keras, *arguments) == 1
  assert (
    "The file has 2 dense layers and the network 1; unmatched layers: layers/dense_1."
    in capsys.readouterr().err
  )
  with h5py.File(path, "a") as file:
    bias = file["layers/conv2d/vars/1"][0]
    file["layers/conv2d/vars/1"][0] = np.nan
  assert call(import_keras, *arguments) == 1
  assert (
    "Layer conv2d of the file has infinite or NaN values in its bias."
    in capsys.readouterr().err
  )
  with h5py.File(path, "a") as file:
    file["layers/conv2d/vars/1"][0] = bias
    del file["layers/dense_1/vars/1"]
  assert call(import_keras, *arguments) == 1
  assert "layers/dense_1 of the file has weights of a kind" in capsys.readouterr().err


def test_bad_files_and_folders(workdirs, tmp_path, capsys):
  def problem(command, *arguments):
    assert call(command, *arguments) == 1
    return capsys.readouterr().err

  run, path = workdirs["photos"], tmp_path / "ours.h5"
  folder = tmp_path / "folder.h5"
  folder.mkdir()
  for bad in ("ours.keras", folder):
    assert "must be a file" in problem(export_keras, "--workdir", run, "--output", bad)
  assert "no checkpoint in" in problem(
    export_keras, "--workdir", tmp_path, "--output", path
  )
  assert call(export_keras, "--workdir", run, "--output", path) == 0
  arguments = import_arguments("photos", path, tmp_path / "run")
  assert call(import_keras, *arguments) == 0
  assert "holds a run already" in problem(import_keras, *arguments)
  assert "no field 'data.size'" in problem(
    import_keras, *arguments, "--set", "data.size=1"
  )
  path.write_bytes(path.read_bytes()[:2000])
  arguments = import_arguments("photos", path, tmp_path / "other")
  assert "cannot be read as Keras weights" in problem(import_keras, *arguments)
  path.unlink()
  assert "No such file" in problem(import_keras, *arguments)
