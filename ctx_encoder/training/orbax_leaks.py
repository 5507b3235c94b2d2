"""Keeps Orbax from two calls of TensorStore 0.1 that leak, about 30 KB a save.

TensorStore never frees the Python objects that `KvStore.Spec.to_json` and
`experimental_collect_matching_metrics` return. Orbax calls the first for every array,
to normalize a specification that is normal already where the folder is a local one, and
the second for statistics that nothing here reads.
"""

import types
from typing import Any

from orbax import checkpoint
from orbax.checkpoint._src.serialization import tensorstore_utils

_TENSORSTORE = tensorstore_utils.ts


class _Spec:
  """A specification that stays as it was given."""

  def __init__(self, json: dict[str, Any]):
    self.json = json

  def to_json(self) -> dict[str, Any]:
    return self.json


class _KvStore:
  Spec = _Spec

  @staticmethod
  def open(spec: _Spec, **options: Any) -> Any:
    return _TENSORSTORE.KvStore.open(spec.json, **options)


def prevent() -> None:
  """Replaces both calls, in the versions of Orbax whose code is known."""
  if checkpoint.__version__.startswith("0.12."):
    tensorstore_utils.get_tensorstore_raw_bytes = lambda *args: 0
    replaced = vars(_TENSORSTORE) | {"KvStore": _KvStore}
    tensorstore_utils.ts = types.SimpleNamespace(**replaced)
