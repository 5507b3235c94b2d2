"""Placement on the mesh; layouts and processes are tested in tests/training."""

import jax
import numpy as np
import pytest

from ctx_encoder import distributed


def test_gathering_compiles_once_per_mesh(monkeypatch):
  jits, jit = [], jax.jit
  monkeypatch.setattr(
    jax, "jit", lambda *args, **kw: jits.append(kw) or jit(*args, **kw)
  )
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  distributed._replicate.cache_clear()
  mesh = distributed.data_mesh(1)
  tree = {"image": jax.device_put(np.arange(6.0), distributed.split(mesh))}
  for _ in range(3):
    found = distributed.local(mesh, tree)
    assert type(found["image"]) is np.ndarray
    np.testing.assert_array_equal(found["image"], np.arange(6.0))
  assert jits == [{"out_shardings": distributed.replicated(mesh)}]


def test_sums_of_one_process_are_exact():
  assert distributed.sum_over_processes([0.1, 2**60 + 1.0]) == [0.1, 2**60 + 1.0]


def test_sums_over_processes_keep_48_bits(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(distributed, "gather", lambda x: np.stack([x, x]))
  values = [0.1, 123456.789, -3e-9]
  found = distributed.sum_over_processes(values)
  np.testing.assert_allclose(found, 2 * np.array(values), rtol=2**-47)


def test_batch_sizes_must_be_multiples_of_the_devices():
  mesh = distributed.data_mesh(1)
  distributed.check_batch_size(mesh, 7)
  distributed.check_batch_size(mesh, 12, accumulate=4)
  with pytest.raises(ValueError, match=r"\(14\) must be .* \(4\); nearest: 16"):
    distributed.check_batch_size(mesh, 14, accumulate=4)
