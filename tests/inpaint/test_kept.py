"""Functions whose trace is kept in a folder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder.inpaint import kept, shipped

KEYS = jax.random.split(jax.random.key(0), 2)


def noisy(traces):
  """Returns a new function, which jax has not traced, and lists its traces."""

  def function(params, x, keys):
    traces.append(x.shape)
    return x * params["a"] + jax.vmap(jax.random.bits)(keys)

  return function


def test_a_later_process_does_not_trace(tmp_path):
  params, x = {"a": jnp.float32(3)}, np.arange(2, dtype=np.float32)
  expected, traces = jax.jit(noisy([]))(params, x, KEYS), []
  for _ in range(2):  # the second knows as little as a new process
    compiled = kept.jit(noisy(traces), "noisy", tmp_path)
    np.testing.assert_array_equal(compiled(params, x, KEYS), expected)
    np.testing.assert_array_equal(compiled(params, x, KEYS), expected)
  assert traces == [(2,)]
  compiled(params, x[:1], KEYS[:1])
  assert traces == [(2,), (1,)]
  assert len(list(tmp_path.glob("noisy-*.stablehlo"))) == 2


@pytest.mark.parametrize("harm", ["cut", "flipped", "code", "setting", "read-only"])
def test_what_was_kept_is_not_used_blindly(tmp_path, monkeypatch, harm):
  params, x = {"a": jnp.float32(3)}, np.arange(2, dtype=np.float32)
  traces = []
  expected = kept.jit(noisy(traces), "noisy", tmp_path)(params, x, KEYS)
  (file,) = tmp_path.iterdir()
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  if harm in ("cut", "flipped"):
    file.write_bytes(content if harm == "flipped" else content[:100])
  elif harm == "code":
    monkeypatch.setattr(kept, "_ROOT", tmp_path)
    (tmp_path / "changed.py").write_text("")
  elif harm == "setting":
    jax.config.update("jax_default_matmul_precision", "float32")
  folder = file if harm == "read-only" else tmp_path  # a folder that cannot be made
  try:
    again = kept.jit(noisy(traces), "noisy", folder)(params, x, KEYS)
  finally:
    jax.config.update("jax_default_matmul_precision", None)
  np.testing.assert_array_equal(again, expected)
  assert len(traces) == 2


@pytest.mark.slow  # compiles the network twice
def test_the_packages_network_gives_the_same_pixels(tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
  masks = np.zeros((1, 64, 64, 1), np.uint8)
  masks[:, 20:50, 10:40] = 1
  before = jax.config.jax_compilation_cache_dir
  found = []
  try:
    for folder in (None, str(tmp_path)):
      jax.config.update("jax_compilation_cache_dir", folder)
      found.append(np.asarray(shipped.complete(64)(images, masks, KEYS[:1])))
  finally:
    jax.config.update("jax_compilation_cache_dir", before)
  np.testing.assert_array_equal(*found)
  assert list(tmp_path.glob("landscape-64-*.stablehlo"))
