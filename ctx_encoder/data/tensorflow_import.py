"""Optional import of TensorFlow, on first use and without access to accelerators."""

import contextlib
import functools
import os
from typing import Any

INSTALL = "pip install -e '.[tf]'"  # in a checkout, as README does


@functools.cache
def find_tensorflow() -> Any:
  """Returns the module `tensorflow`, or None if it is not installed."""
  # No messages about CPU instruction sets on every start.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  try:
    import tensorflow as tf
  except ImportError:
    return None
  with contextlib.suppress(RuntimeError):  # other code has initialized its devices
    tf.config.set_visible_devices([], "GPU")
  return tf


def require_tensorflow(what: str) -> Any:
  """Returns the module `tensorflow`; raises ModuleNotFoundError naming `what`."""
  tf = find_tensorflow()
  if tf is None:
    raise ModuleNotFoundError(
      f"Reading {what} needs TensorFlow: {INSTALL} (folders of images are read"
      " without it)."
    )
  return tf
