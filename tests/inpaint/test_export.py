"""Exported generators run without this package and complete as the model does."""

import functools
import json
import re
import subprocess
import sys

import command
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ctx_encoder.apps.commands import export
from ctx_encoder.inpaint import export as exporting
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


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
  """A work directory for each of the models."""
  root = tmp_path_factory.mktemp("runs")
  return {
    name: tiny.untrained_run(root / name, 5000, **NARROW, **changes)
    for name, changes in MODELS.items()
  }


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


@pytest.mark.parametrize("name", MODELS)
def test_lowered_program(workdirs, name):
  model = trained.load(workdirs[name])
  program = exporting.exported(model)
  assert program.platforms == ("cpu", "cuda", "tpu")
  images, masks = examples()
  complete = jax.jit(jax.export.deserialize(program.serialize()).call)
  check(np.asarray(complete(images, masks)), workdirs[name])
  # Any batch size.
  check(np.asarray(complete(images[:2], masks[:2])), workdirs[name])


def test_each_platform_gets_its_own_convolutions(workdirs):
  model = trained.load(workdirs["monet"])
  every, cpu, cuda, tpu = (
    exporting.exported(model, platforms).mlir_module()
    for platforms in (exporting.PLATFORMS, ("cpu",), ("cuda",), ("tpu",))
  )
  # A stock transposed convolution dilates its input; the CPU has its own form.
  dilated = "lhs_dilate = [2, 2]"
  assert cuda.count(dilated) == tpu.count(dilated) == 5
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


@pytest.mark.slow  # loads TensorFlow twice
def test_a_savedmodel_needs_only_tensorflow(workdirs, tmp_path, capsys):
  pytest.importorskip("tensorflow")
  folder = tmp_path / "new" / "unet"
  arguments = ("--workdir", workdirs["unet"], "--format", "savedmodel")
  if call(*arguments, "--output", folder):
    assert re.search(
      r"TensorFlow \S+ cannot run the StableHLO of jax", capsys.readouterr().err
    )
    assert not folder.exists()
    pytest.skip("this TensorFlow cannot read this jax's StableHLO")
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
