"""Lists and downloads published weights, from a local server."""

import functools
import hashlib
import http.server
import threading

import pytest
from command import call, refusal

from ctx_encoder.apps.commands import weights


@pytest.fixture
def server(tmp_path):
  """A served folder and its address."""
  folder = tmp_path / "served"
  folder.mkdir()
  handler = functools.partial(
    http.server.SimpleHTTPRequestHandler, directory=str(folder)
  )
  handler.log_message = lambda *_: None
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()


def publish(monkeypatch, server, content=b"weights", checksum=None):
  folder, address = server
  (folder / "net.pth").write_bytes(content)
  checksum = checksum or hashlib.sha256(content).hexdigest()[:8]
  published = weights.Published(f"{address}/net.pth", checksum, "nothing")
  monkeypatch.setitem(weights.FILES, "vgg", published)


def test_listing_uses_no_network(monkeypatch, capsys):
  monkeypatch.setattr(weights, "fetch", None)
  assert call("weights") == 0
  out = capsys.readouterr().out
  assert all(f"{name}: " in out for name in weights.FILES)
  assert call("weights", "vgg16") == 0
  assert "style.path" in capsys.readouterr().out


def test_files_are_downloaded_once_and_checked(monkeypatch, server, tmp_path, capsys):
  publish(monkeypatch, server)
  command = ["weights", "vgg", "--download", "--output", tmp_path / "out"]
  assert call(*command) == 0
  file = tmp_path / "out" / "net.pth"
  assert file.read_bytes() == b"weights"
  (server[0] / "net.pth").unlink()
  assert call(*command) == 0  # it exists already
  assert str(file) in capsys.readouterr().out
  file.write_bytes(b"altered")
  assert call(*command) == 1
  assert "is not the published file" in capsys.readouterr().err
  assert file.read_bytes() == b"altered"


def test_a_file_with_a_wrong_checksum_is_removed(monkeypatch, server, tmp_path, capsys):
  publish(monkeypatch, server, checksum="00000000")
  command = ["weights", "vgg", "--download", "--output", tmp_path / "out"]
  assert call(*command) == 1
  assert "is not the published file" in capsys.readouterr().err
  assert list((tmp_path / "out").iterdir()) == []


def test_errors_are_one_line(monkeypatch, server, tmp_path, capsys):
  publish(monkeypatch, server)
  (server[0] / "net.pth").unlink()
  command = ["weights", "vgg", "--download", "--output", tmp_path / "out"]
  assert call(*command) == 1
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert "cannot be downloaded" in error
  error = refusal(capsys, "weights", "vgg17")
  assert "there is no 'vgg17'; names are vgg16" in error
  assert "--download needs a name" in refusal(capsys, "weights", "--download")
