"""What every test runs under: strict shapes, warnings as errors, one small cache."""

import ctypes
import os

from jaxlib import version

# Before JAX starts: on the CPU, and compiled in a hurry, which is what tests wait for.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_backend_optimization_level=0",
    # Three times as fast; XLA ends the process for a flag that it has lost.
    "--xla_cpu_use_fusion_emitters=false" if version.__version_info__ < (0, 11) else "",
  ]
).strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pictures
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
  parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config, items):
  if config.getoption("--slow"):
    return
  skip = pytest.mark.skip(reason="slow; run with --slow")
  for item in items:
    if "slow" in item.keywords:
      item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
  """A temporary folder of this session, the same one for all workers of xdist."""
  base = tmp_path_factory.getbasetemp()
  return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(shared_folder):
  """The folder of compiled functions; JAX_COMPILATION_CACHE_DIR keeps it between runs.

  Within one run it saves the second compilation of a training that is resumed.
  """
  folder = jax.config.jax_compilation_cache_dir or str(shared_folder / "compiled")
  jax.config.update("jax_compilation_cache_dir", folder)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  return folder


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
  """A folder of 20 small pictures, of which 15 are for training. It is read only."""
  folder = tmp_path_factory.mktemp("photographs")
  pictures.fill_folder(folder, 20, side=16)
  return folder


@pytest.fixture(scope="module")
def mosaics():
  """Within it, runs train networks of a few parameters."""
  import tiny

  with pytest.MonkeyPatch.context() as patch:
    tiny.use_mosaics(patch)
    yield


@pytest.fixture(scope="module")
def small_networks():
  """Within it, runs train a small 'Photos' generator."""
  import tiny

  with pytest.MonkeyPatch.context() as patch:
    tiny.use_small_networks(patch)
    yield


@pytest.fixture(scope="module", autouse=True)
def no_caches():
  """Frees compiled functions after each file: all together they take gigabytes."""
  yield
  jax.clear_caches()
  # Compiling leaves hundreds of megabytes that malloc does not return.
  if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
    trim(0)
