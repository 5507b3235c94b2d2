"""Programs compile for TPUs and GPUs; the counts of what a compiled program moves."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
PROGRAMS = ("step", "evaluation", "inference")

# As XLA prints modules: a fusion's inside moves nothing, a called computation does.
MODULE = """\
HloModule jit_f, is_scheduled=true

%fused_computation (param_0: f32[8,4]) -> f32[8,4] {
  %param_0 = f32[8,4]{1,0} parameter(0)
  ROOT %add.1 = f32[8,4]{1,0} add(%param_0, %param_0)
}

%body (p: f32[8,4]) -> f32[8,4] {
  %p = f32[8,4]{1,0} parameter(0)
  ROOT %fusion = f32[8,4]{1,0} fusion(%p), kind=kLoop, calls=%fused_computation
}

ENTRY %main (a: f32[8,4], b: bf16[2]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %b = bf16[2]{0} parameter(1)
  %c = (f32[8,4]{1,0:T(8,128)}, /*index=1*/f32[16]{0}) all-reduce(%a, %a), to_apply=%add
  %d = f32[8,4]{1,0} get-tuple-element(%c), index=0
  %e = (bf16[2]{0}, bf16[16]{0}) all-gather-start(%b), dimensions={0}
  %f = bf16[16]{0} all-gather-done(%e)
  ROOT %call = f32[8,4]{1,0} call(%d), to_apply=%body
}
"""


@pytest.fixture
def hlo(monkeypatch):
  monkeypatch.syspath_prepend(BENCHMARKS)
  return importlib.import_module("hlo")


def test_collectives_are_counted_with_their_bytes(hlo):
  found = hlo.collectives(MODULE, devices=8)
  assert found == [("all-reduce", "f32", 4 * (32 + 16)), ("all-gather", "bf16", 2 * 16)]
  assert hlo.by_kind([*found, found[1]])["all-gather bf16"] == {"count": 2, "bytes": 64}


def test_a_reduce_scatter_counts_its_operand(hlo):
  lines = [
    "%a = f32[2]{0} reduce-scatter(%x), dimensions={0}",
    "%b = (f32[16]{0}, f32[2]{0}) reduce-scatter-start(%x), dimensions={0}",
  ]
  for line in lines:
    assert hlo.collectives(line, devices=8) == [("reduce-scatter", "f32", 64)]


def test_bytes_of_kernels(hlo):
  reduced = 4 * (32 + 16) + 2 * 4 * 32
  gathered = 2 * (2 + 16) + 2 * 2
  assert hlo.traffic(MODULE) == reduced + gathered + 2 * 4 * 32


def compiled(compiler, tmp_path, *arguments):
  """Returns the rows of `aot.py` with narrow networks, or skips the test."""
  if importlib.util.find_spec(compiler) is None:
    pytest.skip(f"{compiler} is not installed: BUILD.md, 'Without the device'")
  command = [sys.executable, BENCHMARKS / "aot.py", "--width", "0.0625"]
  command += ["--batch_sizes", "4", "--dtypes", "float32", *arguments]
  command += ["--output", tmp_path / "aot.json"]
  subprocess.run([*map(str, command)], check=True, timeout=900)
  return json.loads((tmp_path / "aot.json").read_text())["rows"]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("target", "sharding"), [("h100-1", "replicated"), ("h100-8", "sharded")]
)
def test_the_step_compiles_for_a_gpu(target, sharding, tmp_path):
  arguments = ("--targets", target, "--shardings", sharding)
  (row,) = compiled("jax_cuda12_plugin", tmp_path, *arguments)
  assert row["error"] is None
  # The state is written in place: all arguments but the batch and the key.
  assert row["arguments"] - row["aliased"] < 4 * (128 * 128 * 3 + 4) + 4096
  assert 0 < row["peak"] < row["memory"]
  kinds = {kind.partition(" ")[0] for kind in row["collectives"]}
  assert kinds <= {"all-reduce", "all-gather", "reduce-scatter"}
  assert ("all-gather" in kinds) == (sharding == "sharded")


@pytest.mark.slow
def test_programs_compile_for_a_tpu(tmp_path):
  arguments = ("--targets", "v5e-1", "--image_size", "32")
  rows = compiled("libtpu", tmp_path, *arguments, "--programs", *PROGRAMS)
  assert [row["program"] for row in rows] == list(PROGRAMS)
  for row in rows:
    assert row["error"] is None
    assert row["flops"] > 0
    assert 0 < row["peak"] < row["memory"]
