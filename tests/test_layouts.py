"""The same steps on one device and on eight, copied, sharded and by pmap."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from ctx_encoder import sharding

HERE = pathlib.Path(__file__).parent


def run_script(cache, devices, *arguments):
  flags = f"--xla_force_host_platform_device_count={devices}"
  environment = {
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "PYTHONPATH": str(HERE.parent),
  }
  finished = subprocess.run(
    [sys.executable, HERE / "layouts.py", *map(str, arguments)],
    env=os.environ | environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert finished.returncode == 0, finished.stderr
  return finished.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory, compilation_cache):
  """Returns a function from a layout to its arrays, by name."""
  folder = tmp_path_factory.mktemp("layouts")
  done = {}

  def arrays(layout):
    if layout not in done:
      run_script(compilation_cache, 8, layout, folder / f"{layout}.npz")
      done[layout] = dict(np.load(folder / f"{layout}.npz"))
    return done[layout]

  return arrays


@pytest.mark.parametrize("layout", ["jit", "sharded", "pmap"])
def test_eight_devices_do_what_one_does(made, layout):
  one, eight = made("one"), made(layout)
  assert one.keys() == eight.keys()
  for name, expected in one.items():
    np.testing.assert_allclose(
      eight[name], expected, rtol=2e-3, atol=2e-5, err_msg=f"{layout} {name}"
    )
  losses = [name for name in one if "loss/" in name]
  assert len(losses) == 4
  for name in losses:
    np.testing.assert_allclose(eight[name], one[name], rtol=1e-5)


def test_what_is_split_and_what_is_copied():
  mesh = jax.sharding.AbstractMesh((8,), ("data",))
  shapes = {"long": (8, 4096), "odd": (9, 4097), "small": (8, 8), "deep": (3, 16, 4096)}
  state = {
    name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()
  }
  places = sharding.of_state(mesh, state, "sharded")
  specs = {name: tuple(place.spec) for name, place in places.items()}
  assert specs == {
    "long": (None, "data"),
    "odd": (),
    "small": (),
    "deep": (None, None, "data"),
  }
  copied = sharding.of_state(mesh, state, "replicated")
  assert all(tuple(place.spec) == () for place in copied.values())


@pytest.mark.slow
def test_a_run_goes_on_in_another_layout(compilation_cache, photographs, tmp_path):
  def train(devices, strategy, folder, steps):
    return run_script(
      compilation_cache, devices, "train", strategy, photographs, folder, steps
    )

  train(1, "replicated", tmp_path / "uncut", 6)
  train(8, "sharded", tmp_path / "moved", 2)
  assert "Resuming at step 2 of 4" in train(1, "sharded", tmp_path / "moved", 4)
  assert "Resuming at step 4 of 6" in train(4, "replicated", tmp_path / "moved", 6)
  uncut, moved = (
    [json.loads(line) for line in path.read_text().splitlines()]
    for path in (tmp_path / "uncut/metrics.jsonl", tmp_path / "moved/metrics.jsonl")
  )
  assert moved[-1]["step"] == 6
  for name in ("eval/psnr_hole", "eval/loss/reconstruction"):
    np.testing.assert_allclose(moved[-1][name], uncut[-1][name], rtol=1e-3)
