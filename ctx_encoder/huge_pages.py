"""Memory in pages of 2 MiB, where the system gives them to those who ask."""

import os
import sys

_TUNABLES = "GLIBC_TUNABLES"


def use() -> None:
  """Starts this process again with huge pages, unless GLIBC_TUNABLES is set already.

  XLA's CPU backend takes the memory of a training step anew at every step. In pages of
  4 KiB, the system spends up to a tenth of the step on handing it out. glibc reads the
  setting when a process starts, and at no other time; other C libraries, and other
  systems than Linux, are left alone or do not mind.
  """
  if sys.platform == "linux" and _TUNABLES not in os.environ:
    os.environ[_TUNABLES] = "glibc.malloc.hugetlb=1"
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
