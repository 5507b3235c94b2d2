"""The same steps on one device and on eight, copied, sharded and by pmap."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from ctx_encoder import distributed

SUPPORT = pathlib.Path(__file__).parents[1] / "support"


def start_script(cache, devices, *arguments):
  flags = f"--xla_force_host_platform_device_count={devices}"
  environment = {
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "PYTHONPATH": str(SUPPORT.parents[1]),
  }
  return subprocess.Popen(
    [sys.executable, SUPPORT / "layouts.py", *map(str, arguments)],
    env=os.environ | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(*processes):
  """Returns what they printed, once all have succeeded."""
  printed = []
  try:
    for process in processes:
      output, errors = process.communicate(timeout=300)
      assert process.returncode == 0, errors
      printed.append(output)
  finally:
    for process in processes:
      process.kill()
  return printed


def run_script(*arguments):
  return finish(start_script(*arguments))[0]


def measured(workdir):
  """Returns the lines of a run's log without their times."""
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return [{name: x for name, x in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def made(tmp_path_factory, compilation_cache):
  """Returns a function from a layout to its arrays, by name, and what was printed."""
  folder = tmp_path_factory.mktemp("layouts")
  done = {}

  def arrays(layout):
    if layout not in done:
      printed = run_script(compilation_cache, 8, layout, folder / f"{layout}.npz")
      done[layout] = dict(np.load(folder / f"{layout}.npz")), printed
    return done[layout]

  return arrays


@pytest.mark.parametrize(
  ("single", "layout"),
  [
    pytest.param("one", layout, marks=pytest.mark.slow)
    for layout in ("jit", "sharded", "pmap")
  ]
  + [pytest.param("one_alternating", "sharded_alternating", marks=pytest.mark.slow)],
)
def test_eight_devices_equal_one(made, single, layout):
  (one, _), (eight, _) = made(single), made(layout)
  assert one.keys() == eight.keys()
  for name, expected in one.items():
    np.testing.assert_allclose(
      eight[name], expected, rtol=2e-3, atol=2e-5, err_msg=f"{layout} {name}"
    )
  losses = [name for name in one if "loss/" in name]
  assert len(losses) == 4
  for name in losses:
    np.testing.assert_allclose(eight[name], one[name], rtol=1e-5)


@pytest.mark.parametrize(
  ("layout", "times"),
  [("sharded", 1), pytest.param("sharded_alternating", 2, marks=pytest.mark.slow)],
)
def test_a_sharded_step_exchanges_parameters_and_is_in_place(made, layout, times):
  """As compiled for eight devices: no activations are exchanged, no state copied.

  The discriminator is gathered again after an update that comes first.
  """
  found = json.loads(made(layout)[1])
  gathered = [shape for shape, kind in found["exchanged"] if kind == "all-gather"]
  split = (
    found["parameters"]["generator"] + times * found["parameters"]["discriminator"]
  )
  split = ["f32[" + ",".join(map(str, shape)) + "]" for shape in split]
  # The decoder's first kernel; a single pixel reaches the inner four of its taps. The
  # bottleneck's kernel has the same shape and is gathered completely.
  assert split.count("f32[4,4,8,62]") == 2
  split[split.index("f32[4,4,8,62]")] = "f32[2,2,8,62]"
  assert sorted(shape.partition("{")[0] for shape in gathered) == sorted(split)
  assert {kind for _, kind in found["exchanged"]} == {"all-gather", "all-reduce"}
  assert found["donated"] == found["arrays"] > 100


def test_which_arrays_are_split():
  mesh = jax.sharding.AbstractMesh((8,), ("data",))
  shapes = {"long": (8, 4096), "odd": (9, 4097), "small": (8, 8), "deep": (3, 16, 4096)}
  state = {
    name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes.items()
  }
  places = distributed.of_state(mesh, state, "sharded")
  specs = {name: tuple(place.spec) for name, place in places.items()}
  assert specs == {
    "long": (None, "data"),
    "odd": (),
    "small": (),
    "deep": (None, None, "data"),
  }
  copied = distributed.of_state(mesh, state, "replicated")
  assert all(tuple(place.spec) == () for place in copied.values())


@pytest.mark.slow
def test_a_run_is_resumed_in_another_layout(compilation_cache, photographs, tmp_path):
  def train(devices, strategy, folder, steps):
    return run_script(
      compilation_cache, devices, "train", strategy, photographs, folder, steps
    )

  train(1, "replicated", tmp_path / "uncut", 6)
  train(8, "sharded", tmp_path / "moved", 2)
  assert "Resuming at step 2 of 4" in train(1, "sharded", tmp_path / "moved", 4)
  assert "Resuming at step 4 of 6" in train(4, "replicated", tmp_path / "moved", 6)
  uncut, moved = (measured(tmp_path / name)[-1] for name in ("uncut", "moved"))
  assert moved["step"] == 6
  for name in ("eval/psnr_hole", "eval/loss/reconstruction"):
    np.testing.assert_allclose(moved[name], uncut[name], rtol=1e-3)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, compilation_cache, photographs):
  """The folder of a run of four steps by one process."""
  folder = tmp_path_factory.mktemp("one")
  run_script(compilation_cache, 1, "train", "replicated", photographs, folder, 4)
  return folder


@pytest.mark.slow
@pytest.mark.parametrize(
  ("placement", "strategy"), [("device", "replicated"), ("host", "sharded")]
)
def test_two_processes_equal_one(
  placement, strategy, one_process, compilation_cache, photographs, tmp_path
):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  printed = finish(
    *(
      start_script(
        compilation_cache,
        4,
        *("train", strategy, photographs, tmp_path / "two", 4),
        *(placement, address, number),
      )
      for number in (0, 1)
    )
  )
  assert "this model" in printed[0]
  assert "this model" not in printed[1]
  one, two = measured(one_process), measured(tmp_path / "two")
  assert [line["step"] for line in one] == [line["step"] for line in two]
  for expected, line in zip(one, two, strict=True):
    assert expected.keys() == line.keys()
    for name, value in expected.items():
      np.testing.assert_allclose(line[name], value, rtol=2e-3, err_msg=name)
  results = [
    json.loads((folder / "results.json").read_text())["results"]
    for folder in (one_process, tmp_path / "two")
  ]
  for system, figures in results[0].items():
    for name, value in figures.items():
      np.testing.assert_allclose(results[1][system][name], value, rtol=1e-3)
  # One process resumes what two have saved.
  again = run_script(
    compilation_cache, 1, "train", "replicated", photographs, tmp_path / "two", 5
  )
  assert "Resuming at step 4 of 5" in again
