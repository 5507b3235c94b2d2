"""Checkpoints move between one device, eight devices and two processes."""

import os
import pathlib
import socket
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ctx_encoder
from ctx_encoder.training.checkpoint import Checkpoints

PREAMBLE = """
  import sys
  import jax
  import numpy as np
  from jax.sharding import AxisType, NamedSharding, PartitionSpec
  from ctx_encoder.training.checkpoint import Checkpoints

  def abstract():
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())
    return {
      "w": jax.ShapeDtypeStruct((16, 3), np.float32, sharding=split),
      "b": jax.ShapeDtypeStruct((3,), np.float32, sharding=replicated),
    }

  def check(state, first):
    for name, target in abstract().items():
      assert state[name].sharding == target.sharding
    for shard in state["w"].addressable_shards:
      expected = first + np.arange(48).reshape(16, 3)
      np.testing.assert_array_equal(np.asarray(shard.data), expected[shard.index])
"""


def start_python(script, *args, **environment):
  root = pathlib.Path(ctx_encoder.__file__).parents[1]
  return subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(PREAMBLE + script), *map(str, args)],
    env={**os.environ, "PYTHONPATH": str(root), **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def assert_succeeds(*processes):
  try:
    for process in processes:
      output, _ = process.communicate(timeout=180)
      assert process.returncode == 0, output
  finally:
    for process in processes:
      process.kill()


def make_state(first=0.0):
  return {"w": first + jnp.arange(48.0).reshape(16, 3), "b": first + jnp.zeros(3)}


@pytest.fixture
def folder(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, make_state(), config={})
  return tmp_path


def assert_holds(folder, step, first):
  checkpoints = Checkpoints(folder)
  assert checkpoints.latest() == step
  state, _ = checkpoints.restore(make_state())
  jax.tree.map(np.testing.assert_array_equal, state, make_state(first))
  assert all(x.sharding.device_set == {jax.devices()[0]} for x in state.values())


def test_eight_devices(folder):
  script = """
  with Checkpoints(sys.argv[1]) as checkpoints:
    state, _ = checkpoints.restore(abstract())
    assert len(state["w"].addressable_shards) == 8
    check(state, 0)
    checkpoints.save(2, jax.tree.map(lambda x: x + 1, state), config={})
  """
  flags = "--xla_force_host_platform_device_count=8"
  assert_succeeds(start_python(script, folder, XLA_FLAGS=flags))
  assert_holds(folder, 2, 1.0)


@pytest.mark.slow
def test_two_processes(folder):
  """Both write; the first adds the record; both delete the same checkpoints."""
  script = """
  folder, address, process = sys.argv[1], sys.argv[2], int(sys.argv[3])
  jax.distributed.initialize(address, 2, process)
  with Checkpoints(folder, keep=1) as checkpoints:
    state, _ = checkpoints.restore(abstract())
    assert len(state["w"].addressable_shards) == 1
    check(state, 0)
    for step, psnr in ((2, 9.0), (3, 8.0), (4, None)):
      state = jax.jit(lambda s: {k: x + 1 for k, x in s.items()})(state)
      metrics = None if psnr is None else {"eval/psnr_hole": psnr}
      checkpoints.save(step, state, config={}, metrics=metrics, extra={"step": step})
    checkpoints.save(4, state, config={})
    state, extra = checkpoints.restore(abstract())
    check(state, 3)
    assert extra == {"step": 4}
    assert checkpoints.best() == 2
  """
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  assert_succeeds(*(start_python(script, folder, address, i) for i in range(2)))
  assert Checkpoints(folder).steps() == [2, 4]
  assert_holds(folder, 4, 3.0)
