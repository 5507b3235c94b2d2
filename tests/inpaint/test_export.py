"""Exported generators run without this package and complete as the model does."""

import functools
import json
import os
import re
import subprocess
import sys

import command
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ctx_encoder.apps.commands import export, export_keras
from ctx_encoder.inpaint import export as exporting
from ctx_encoder.inpaint import onnx_graph, shipped
from ctx_encoder.training import trained
from ctx_encoder.training.inference import make_complete

SIZE = 32
NARROW = {"data__image_size": SIZE, "model__width": 1 / 16}

# Kinds of layers, inputs and outputs.
MODELS = {
  "photos": {"masks__fill": "mean", "data__normalization": "minmax"},
  "monet": {"model__generator": "monet"},
  "unet": {
    "model__generator": "monet",
    "model__skips": True,
    "model__mask_channel": True,
    "model__predict": "residual",
    "masks__fill": "smooth",
  },
  "patch": {"model__predict": "patch", "model__bottleneck": "channelwise"},
  "noise": {"model__noise_dim": 2},
}


class Workdirs(dict):
  """A work directory for each of the models, made when it is needed."""

  def __init__(self, root):
    self._root = root

  def __missing__(self, name):
    changes = NARROW | MODELS[name]
    self[name] = tiny.untrained_run(self._root / name, 5000, **changes)
    return self[name]


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
  return Workdirs(tmp_path_factory.mktemp("runs"))


def fast(*names, of):
  """Returns parameters, of which only these belong to fast tests."""
  slow = pytest.mark.slow
  return [pytest.param(name, marks=[] if name in names else slow) for name in of]


def examples(count=3):
  """Returns images, and masks whose holes are 255 in one and 1 in the others."""
  draw = np.random.default_rng(1)
  images = draw.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
  masks = np.zeros((count, SIZE, SIZE, 1), np.uint8)
  masks[:, 8:24, 5:20] = 1
  masks[0] *= 255
  return images, masks


@functools.cache
def expected_of(workdir):
  """Returns what the model itself makes of `examples`."""
  model = trained.load(workdir)
  images, masks = examples()
  keys = None
  if model.config.model.noise_dim:
    keys = jnp.stack(
      [jax.random.fold_in(jax.random.key(0), i) for i in range(len(images))]
    )
  complete = make_complete(model.generator, model.variables, model.view)
  return np.asarray(complete(images, masks > 0, keys)).astype(int)


def check(completed, workdir):
  """Compares an exported function's output for the first examples with the model's."""
  count = len(completed)
  images, masks = (array[:count] for array in examples())
  expected = expected_of(workdir)[:count]
  known = np.broadcast_to(masks == 0, images.shape)
  np.testing.assert_array_equal(completed[known], images[known])
  assert completed.dtype == np.uint8
  assert expected[~known].std() > 1  # not one grey
  assert np.abs(completed - expected).max() <= 1
  # Of values that differ by 1e-4, at most 2.6 % are rounded differently.
  assert np.mean((completed != expected)[~known]) < 0.026


call = functools.partial(command.call, export)


def run_elsewhere(code, folder, *, without=()):
  """Runs printed code on `examples` in a new process; returns its output."""
  blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in without)
  images, masks = examples()
  np.savez(folder / "examples.npz", images=images, masks=masks)
  code = code.replace(
    "completed =", "images, masks = np.load('examples.npz').values()\ncompleted ="
  )
  code = (
    f"import sys\n{blocked}{code}\n"
    "assert not any(name.startswith('ctx_encoder') for name in sys.modules)\n"
    "np.save('completed.npy', completed)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return np.load(folder / "completed.npy")


def printed_code(capsys):
  line, _, code = capsys.readouterr().out.rpartition("To run it:\n")
  assert "Step 5000 of" in line
  return code


@pytest.mark.slow
@pytest.mark.parametrize("name", fast("noise", of=MODELS))
def test_lowered_program(workdirs, name):
  model = trained.load(workdirs[name])
  program = exporting.exported(model)
  assert program.platforms == ("cpu", "cuda", "tpu")
  images, masks = examples()
  complete = jax.jit(jax.export.deserialize(program.serialize()).call)
  check(np.asarray(complete(images, masks)), workdirs[name])
  # Any batch size.
  check(np.asarray(complete(images[:2], masks[:2])), workdirs[name])


@pytest.mark.slow
def test_each_platform_gets_its_own_convolutions(workdirs):
  model = trained.load(workdirs["monet"])
  every, cpu, cuda, tpu = (
    exporting.exported(model, platforms).mlir_module()
    for platforms in (exporting.PLATFORMS, ("cpu",), ("cuda",), ("tpu",))
  )
  # A stock transposed convolution dilates its input, unless that is a single pixel; the
  # CPU has its own form.
  dilated = "lhs_dilate = [2, 2]"
  assert cuda.count(dilated) == tpu.count(dilated) == 4
  assert dilated in every
  assert dilated not in cpu
  # The only custom call checks shapes, and jax.export guarantees its stability.
  assert set(re.findall(r"custom_call @(\w+)", every)) == {"shape_assertion"}


def test_stablehlo_needs_only_jax_and_flatbuffers(workdirs, tmp_path, capsys):
  path = tmp_path / "new" / "photos.stablehlo"
  arguments = ("--workdir", workdirs["photos"], "--format", "stablehlo")
  assert call(*arguments, "--output", path) == 0
  code = printed_code(capsys)
  absent = ("flax", "optax", "orbax", "tensorflow", "ml_collections")
  completed = run_elsewhere(code, tmp_path, without=absent)
  check(completed, workdirs["photos"])
  described = json.loads(path.with_name("photos.stablehlo.json").read_text())
  assert described["images"]["shape"] == ["batch", SIZE, SIZE, 3]
  assert described["step"] == 5000
  # An existing file is replaced.
  path.write_bytes(b"old")
  assert call(*arguments, "--output", path, "--step", 5000) == 0
  assert path.stat().st_size > 1000


@pytest.mark.parametrize("name", fast("unet", of=("photos", "unet", "patch")))
def test_onnx_runs_with_onnxruntime(workdirs, tmp_path, capsys, name):
  pytest.importorskip("onnx")
  pytest.importorskip("onnxruntime")
  path = tmp_path / "new" / "network.onnx"
  arguments = ("--workdir", workdirs[name], "--format", "onnx", "--output", path)
  assert call(*arguments) == 0
  code = printed_code(capsys)
  described = json.loads(path.with_name("network.onnx.json").read_text())
  assert described["masks"]["shape"] == ["batch", SIZE, SIZE, 1]
  completed = run_elsewhere(code, tmp_path, without=("jax", "flax", "tensorflow"))
  check(completed, workdirs[name])


def session_of(function, inputs):
  runtime = pytest.importorskip("onnxruntime")
  pytest.importorskip("onnx")
  model = onnx_graph.convert(function, inputs, "result")
  assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
  return runtime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("name", fast(of=("monet", "landscape")))
def test_onnx_agrees_to_a_ten_thousandth(workdirs, name):
  """The floats before rounding, for batches of one and three."""
  model = shipped.model(SIZE) if name == "landscape" else trained.load(workdirs[name])

  def outputs(images, masks):
    mask = (masks > 0).astype(jnp.float32)
    examples = model.view.examples(images.astype(jnp.float32) / 255, mask)
    outputs = model.generator.apply(model.variables, examples.inputs, train=False)
    return model.view.completed(outputs, examples)

  shapes = {
    "images": ((SIZE, SIZE, 3), jnp.uint8),
    "masks": ((SIZE, SIZE, 1), jnp.uint8),
  }
  session = session_of(outputs, shapes)
  images, masks = examples()
  expected = np.asarray(jax.jit(outputs)(images, masks))
  for count in (1, 3):
    feeds = {"images": images[:count], "masks": masks[:count]}
    (found,) = session.run(None, feeds)
    np.testing.assert_allclose(found, expected[:count], atol=1e-4)
  assert expected[masks[..., 0] > 0].std() > 0.01


def test_onnx_operations_of_other_networks():
  """Operations, one by one, that the networks above do not have all of."""
  kernel = np.random.default_rng(0).normal(size=(4, 4, 3, 5)).astype(np.float32)
  x = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
  options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

  def conv(x, **changes):
    padding = changes.pop("padding", "SAME")
    strides = changes.pop("strides", (1, 1))
    return jax.lax.conv_general_dilated(
      x, kernel, strides, padding, **options, **changes
    ).mean((1, 2, 3))

  def function(x):
    padded = jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 0)), constant_values=3)
    rows = [
      conv(x, strides=(2, 2)),
      conv(x, rhs_dilation=(2, 2)),
      conv(x, lhs_dilation=(2, 2), padding=((2, 2), (1, 3))),
      jax.nn.gelu(x).sum((1, 2, 3)),
      jax.nn.softmax(x, 3)[..., 0].max((1, 2)),
      jax.lax.slice_in_dim(padded, 1, 8, 2, axis=1).sum((1, 2, 3)),
      jnp.where(x != 0, jax.nn.sigmoid(x), -x).min((1, 2, 3)),
    ]
    return jnp.concatenate([row.reshape(-1, 1) for row in rows], 1)

  session = session_of(function, {"x": ((8, 8, 3), jnp.float32)})
  (found,) = session.run(None, {"x": x})
  np.testing.assert_allclose(found, np.asarray(jax.jit(function)(x)), atol=1e-4)


def test_what_onnx_cannot_express_is_one_line(workdirs, tmp_path, monkeypatch, capsys):
  pytest.importorskip("onnx")
  arguments = ("--format", "onnx", "--output", tmp_path / "x.onnx")
  assert call("--workdir", workdirs["noise"], *arguments) == 1
  assert "A network with noise (model.noise_dim) cannot" in capsys.readouterr().err
  with pytest.raises(ValueError, match="its operation sort is not supported"):
    session_of(lambda x: jnp.sort(x, 1), {"x": ((8,), jnp.float32)})
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("name", "library", "extra"),
  [("onnx", "onnx", "onnx"), ("savedmodel", "tensorflow", "tf")],
)
def test_a_missing_library_is_named_before_anything_is_loaded(
  tmp_path, monkeypatch, capsys, name, library, extra
):
  monkeypatch.setitem(sys.modules, library, None)
  monkeypatch.setattr(shipped, "model", lambda size: pytest.fail("loaded"))
  assert call("--format", name, "--output", tmp_path / "x") == 1
  error = capsys.readouterr().err
  assert f"needs {library}, which is not installed: pip install" in error
  assert f"[train,{extra}]'" in error


@pytest.mark.slow  # loads TensorFlow twice
def test_a_savedmodel_needs_only_tensorflow(workdirs, tmp_path, monkeypatch, capsys):
  pytest.importorskip("tensorflow")
  flushed = []

  def fsync(descriptor):
    flushed.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

  monkeypatch.setattr(os, "fsync", fsync)
  folder = tmp_path / "new" / "unet"
  arguments = ("--workdir", workdirs["unet"], "--format", "savedmodel")
  if call(*arguments, "--output", folder):
    assert re.search(
      r"TensorFlow \S+ cannot run the StableHLO of jax", capsys.readouterr().err
    )
    assert not folder.exists()
    pytest.skip("this TensorFlow cannot read this jax's StableHLO")
  assert set(flushed) >= {path.name for path in folder.rglob("*")}
  (folder / "old").write_text("")
  assert call(*arguments, "--output", folder) == 0  # which replaces the first
  assert not (folder / "old").exists()
  code = printed_code(capsys)
  completed = run_elsewhere(code, tmp_path, without=("jax", "jaxlib"))
  check(completed, workdirs["unet"])
  described = json.loads((folder / "assets.extra/description.json").read_text())
  assert described["masks"]["polarity"] == "0 = known, anything else = hole"
  assert [path.name for path in folder.parent.iterdir()] == ["unet"]


def test_bad_input_is_one_line(workdirs, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "file").write_text("mine")
  for changes, message in (
    ({"--workdir": "nowhere"}, "no checkpoint in"),
    ({"--step": 7}, "no checkpoint of step 7"),
    ({"--output": "."}, "is a folder; name a file"),
    ({"--image-size": 64}, "--image-size is for the package's network"),
    ({"--format": "savedmodel", "--output": "."}, "is not a SavedModel"),
    ({"--format": "savedmodel", "--output": "file"}, "is not a SavedModel"),
  ):
    arguments = {"--workdir": workdirs["photos"], "--format": "stablehlo"}
    arguments = {**arguments, "--output": "x", **changes}
    assert call(*(text for pair in arguments.items() for text in pair)) == 1
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.startswith("ctx-encoder export: ")
    assert "\n" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_export_keras_says_what_can_be_exported(workdirs, tmp_path, capsys):
  arguments = ("--workdir", workdirs["unet"], "--output", tmp_path / "x.weights.h5")
  assert command.call(export_keras, *arguments) == 1
  error = capsys.readouterr().err
  assert "cannot be written for Keras" in error
  assert "without skip connections can; for this one use ctx-encoder export" in error
  assert not list(tmp_path.iterdir())
