"""Compiler options, the compilation cache, and huge pages.

On CPUs, XLA may pass convolutions and matrix products to YNNPACK, which runs the
convolutions of these networks at a quarter of the speed of XLA's own code and matrix
products at four fifths (jaxlib 0.10.2, AMD Zen 4). `options` restricts YNNPACK to
reductions, where it is several times faster.
"""

import functools
import os
import sys

_LIBRARY = "xla_cpu_experimental_ynn_fusion_type"
_TUNABLES = "GLIBC_TUNABLES"

# Options for functions that run once: optimising them takes longer than running them.
RUNS_ONCE = {"xla_backend_optimization_level": 0}


def options(platform: str | None = None) -> dict[str, str]:
  """Returns `compiler_options` for the outermost `jax.jit`.

  Empty on other platforms than the CPU, where XLA_FLAGS already sets the option, and
  where this version of XLA does not have it.

  Args:
    platform: of the devices to compile for; None = that of the default devices.
  """
  import jax

  if (platform or jax.default_backend()) != "cpu":
    return {}
  return {} if _LIBRARY in os.environ.get("XLA_FLAGS", "") else _options_of_cpus()


@functools.cache
def _options_of_cpus() -> dict[str, str]:
  import jax

  wanted = {_LIBRARY: "LIBRARY_FUSION_TYPE_REDUCE"}
  try:
    with jax.default_device(jax.devices("cpu")[0]):
      jax.jit(lambda: 0, compiler_options=wanted).lower().compile()
  except jax.errors.JaxRuntimeError:
    return {}
  return wanted


def cache_in(folder: str | os.PathLike) -> None:
  """Enables the persistent compilation cache in a folder."""
  import jax

  jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))
  # A tiny network's step is compiled in less than the second that JAX asks for.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def use_huge_pages() -> None:
  """Restarts this process with huge pages (2 MiB), unless GLIBC_TUNABLES is set.

  XLA's CPU backend allocates memory anew at every training step. With pages of 4 KiB
  the kernel spends up to a tenth of the step on that. glibc reads the setting when a
  process starts; other C libraries ignore it. Does nothing on systems other than Linux.
  """
  if sys.platform == "linux" and _TUNABLES not in os.environ:
    os.environ[_TUNABLES] = "glibc.malloc.hugetlb=1"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
