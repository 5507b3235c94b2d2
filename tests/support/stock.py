"""XLA's own convolutions and poolings, in place of the faster forms for CPUs."""

import contextlib
from unittest import mock

from ctx_encoder.models.ops import conv, pool


@contextlib.contextmanager
def stock_layers():
  def choose(fast, stock):
    del fast
    return stock

  with (
    mock.patch.object(conv, "by_platform", choose),
    mock.patch.object(pool, "by_platform", choose),
  ):
    yield
