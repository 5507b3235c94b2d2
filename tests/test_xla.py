"""XLA options are valid and set only where wanted; the restart with huge pages."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctx_encoder import xla


@pytest.fixture(autouse=True)
def fresh_options(monkeypatch):
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  xla._options_of_cpus.cache_clear()
  yield
  xla._options_of_cpus.cache_clear()


def test_jit_accepts_the_options():
  for options in (xla.options(), xla.RUNS_ONCE):
    doubled = jax.jit(lambda x: 2 * x, compiler_options=options)
    np.testing.assert_array_equal(doubled(jnp.arange(3)), [0, 2, 4])


def test_no_options_where_the_user_sets_the_flag(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")
  assert xla.options() == {}


def test_no_options_on_other_platforms(monkeypatch):
  assert xla.options("tpu") == {}
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert xla.options() == {}
  assert xla.options("cpu") != {}  # what is compiled there for a CPU


def test_no_options_where_xla_lacks_them(monkeypatch):
  monkeypatch.setattr(xla, "_LIBRARY", "xla_no_such_option")
  assert xla.options() == {}


@pytest.fixture
def restarts(monkeypatch):
  """The arguments of every call of `os.execv`, which is replaced."""
  calls = []
  monkeypatch.setattr("os.execv", lambda *args: calls.append(args))
  monkeypatch.setattr(sys, "platform", "linux")
  monkeypatch.setenv("GLIBC_TUNABLES", "")  # restores the user's value after the test
  monkeypatch.delenv("GLIBC_TUNABLES")
  return calls


def test_huge_pages_restart_the_same_command_once(restarts):
  xla.use_huge_pages()
  xla.use_huge_pages()
  assert restarts == [(sys.executable, [sys.executable, *sys.orig_argv[1:]])]


def test_huge_pages_keep_the_users_setting(restarts, monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
  xla.use_huge_pages()
  assert not restarts


def test_huge_pages_are_for_linux_only(restarts, monkeypatch):
  monkeypatch.setattr(sys, "platform", "darwin")
  xla.use_huge_pages()
  assert not restarts
