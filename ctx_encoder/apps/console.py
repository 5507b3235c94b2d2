"""What users read of the programs: errors in one line, and no log of a library."""

import importlib.util
import logging
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]

# The extra that brings a library; `train` brings all others.
_EXTRAS = {"h5py": "weights", "onnx": "onnx"}
_EXTRAS |= {"tensorflow": "tf", "tensorflow_datasets": "tf"}
_EXTRAS |= {"fastapi": "demo", "starlette": "demo", "uvicorn": "demo"}


def quiet_libraries() -> None:
  """Keeps the log of TensorFlow, XLA and JAX from the user.

  Call this before they are imported. Environment variables that are set are left.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # of which TensorFlow warns
  logger = logging.getLogger("jax._src.xla_bridge")
  logger.setLevel(logging.WARNING)
  logger.addFilter(_in_our_words)


def _in_our_words(record: logging.LogRecord) -> bool:
  """Prints that an accelerator is not used; returns whether JAX's line is kept."""
  for device, extra in (("NVIDIA GPU", "cuda"), ("Google TPU", "tpu")):
    if f"{device} may be present" in record.getMessage():
      print(
        f"JAX is installed without support for this machine's {device}: the CPU is"
        f" used. {install(extra)} installs it.",
        file=sys.stderr,
      )
      return False
  return True


def install(*extras: str) -> str:
  """Returns the command that installs the package with more extras."""
  wanted = f"[{','.join(extras)}]"
  if not (_ROOT / "pyproject.toml").exists():
    return f"pip install 'ctx-encoder{wanted}'"
  return f"pip install -e '{'.' if Path.cwd() == _ROOT else _ROOT}{wanted}'"


def need(library: str) -> None:
  """Raises ModuleNotFoundError if a library is not installed, without loading it."""
  if importlib.util.find_spec(library) is None:
    raise ModuleNotFoundError(f"{library} is not installed", name=library)


def problem(error: Exception) -> str:
  """Returns what follows the name of a program in the one line about an error."""
  if isinstance(error, ModuleNotFoundError) and error.name:
    extra = _EXTRAS.get(error.name.partition(".")[0])
    extras = ["train", extra] if extra else ["train"]
    return f" needs {error.name}, which is not installed: {install(*extras)}"
  from ctx_encoder.data.paths import printable

  lines = map(str.strip, str(error).splitlines())
  return ": " + (printable(" ".join(lines)) or repr(error))
