"""Starting again with huge pages, once, and only where it is of use."""

import sys

import pytest

from ctx_encoder import xla


@pytest.fixture
def started(monkeypatch):
  calls = []
  monkeypatch.setattr("os.execv", lambda *args: calls.append(args))
  monkeypatch.setattr(sys, "platform", "linux")
  monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that it is put back as it was
  monkeypatch.delenv("GLIBC_TUNABLES")
  return calls


def test_starts_the_same_command_again_once(started):
  xla.use_huge_pages()
  xla.use_huge_pages()
  assert started == [(sys.executable, [sys.executable, *sys.orig_argv[1:]])]


def test_leaves_a_setting_of_the_user_s_alone(started, monkeypatch):
  monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
  xla.use_huge_pages()
  assert not started


def test_leaves_other_systems_alone(started, monkeypatch):
  monkeypatch.setattr(sys, "platform", "darwin")
  xla.use_huge_pages()
  assert not started
