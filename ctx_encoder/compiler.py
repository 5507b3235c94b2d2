"""What to tell XLA when compiling: `jax.jit(..., compiler_options=compiler.options())`.

Where the platform is a CPU, XLA may hand convolutions and matrix products to YNNPACK,
which runs the convolutions of these networks at a quarter of the speed of XLA's own
and matrix products at four fifths (jaxlib 0.10.2, AMD Zen 4). The options leave it the
reductions, where it is several times faster.
"""

import functools
import os

import jax

_LIBRARY = "xla_cpu_experimental_ynn_fusion_type"

# For what runs once: compiling it well would take many times as long as running it.
RUNS_ONCE = {"xla_backend_optimization_level": 0}


@functools.cache
def options() -> dict[str, str]:
  """Returns options for `jax.jit`, which takes them at the outermost level only.

  They are empty off the CPU, where XLA_FLAGS has a word on the matter, and where this
  XLA does not know them.
  """
  if jax.default_backend() != "cpu" or _LIBRARY in os.environ.get("XLA_FLAGS", ""):
    return {}
  wanted = {_LIBRARY: "LIBRARY_FUSION_TYPE_REDUCE"}
  try:
    jax.jit(lambda: 0, compiler_options=wanted).lower().compile()
  except jax.errors.JaxRuntimeError:
    return {}
  return wanted


def cache_in(folder: str | os.PathLike) -> None:
  """Keeps what is compiled from now on in a folder, and takes it from there."""
  jax.config.update("jax_compilation_cache_dir", os.path.abspath(folder))
  # A tiny network's step is compiled in less than the second that JAX asks for.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
