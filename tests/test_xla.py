"""The options for XLA are taken by it, and only given where they are wanted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder import xla


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  xla.options.cache_clear()
  yield
  xla.options.cache_clear()


def test_jit_takes_them():
  for options in (xla.options(), xla.RUNS_ONCE):
    doubled = jax.jit(lambda x: 2 * x, compiler_options=options)
    np.testing.assert_array_equal(doubled(jnp.arange(3)), [0, 2, 4])


def test_whoever_sets_the_flag_is_left_alone(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")
  assert xla.options() == {}


def test_none_off_the_cpu(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert xla.options() == {}


def test_none_where_xla_does_not_know_them(monkeypatch):
  monkeypatch.setattr(xla, "_LIBRARY", "xla_no_such_option")
  assert xla.options() == {}
