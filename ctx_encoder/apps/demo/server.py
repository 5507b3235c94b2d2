"""Binds an address, serves the application on it, and opens a browser."""

import contextlib
import errno
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Collection

import uvicorn
from fastapi import FastAPI

from ctx_encoder.apps.demo.api import Limits
from ctx_encoder.apps.demo.app import make_app
from ctx_encoder.apps.demo.guard import LOCAL
from ctx_encoder.inpaint import Inpainter

# More connections get status 503. A browser opens up to six.
_CONNECTIONS = 256


def bind(host: str, port: int) -> socket.socket:
  """Binds a listening socket; requests wait until `serve` is called.

  Args:
    host: name or number of one of this machine's addresses.
    port: 0 = any free port.

  Raises:
    OSError: the address is in use or not one of this machine's.
  """
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    claimed = socket.socket(family, kind, protocol)
  except socket.gaierror as error:
    raise OSError(f"There is no host {host!r}: {error.strerror}.") from error
  try:
    if os.name == "posix":  # allows the port of a server that has just ended
      claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    claimed.bind(address)
    claimed.listen()  # where two sockets could bind, the second fails here
  except OSError as error:
    claimed.close()
    if error.errno == errno.EADDRINUSE:
      reason = f"Port {port} of {host} is in use; name another with --port."
    else:
      reason = f"Port {port} of {host} cannot be opened: {error.strerror}."
    raise OSError(reason) from error
  return claimed


def url(bound: socket.socket) -> str:
  """Returns the URL for a browser on this machine."""
  host, port, *_ = bound.getsockname()
  if host in ("0.0.0.0", "::"):  # all addresses
    host = "127.0.0.1" if host == "0.0.0.0" else "::1"
  return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(
  inpainter: Inpainter,
  bound: socket.socket,
  limits: Limits | None = None,
  *,
  hosts: Collection[str] = LOCAL,
  ready: Callable[[], None] = lambda: None,
) -> None:
  """Serves page and API until Ctrl-C or SIGTERM.

  Args:
    inpainter: fills the holes.
    bound: socket from `bind`.
    limits: limits on requests; None = defaults.
    hosts: names by which browsers may address it, see `guard.allowed_hosts`.
    ready: called once, when the server accepts requests.
  """
  server = _Server(settings(make_app(inpainter, limits, hosts)), ready)
  with contextlib.suppress(KeyboardInterrupt):  # raised again after the shutdown
    server.run(sockets=[bound])


def settings(app: FastAPI, connections: int = _CONNECTIONS) -> uvicorn.Config:
  """Returns how an application is served."""
  return uvicorn.Config(
    app,
    log_level="warning",
    access_log=False,
    limit_concurrency=connections,
    timeout_graceful_shutdown=5,
  )


class _Server(uvicorn.Server):
  def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
    super().__init__(config)
    self._ready = ready

  async def startup(self, sockets: list[socket.socket] | None = None) -> None:
    await super().startup(sockets)
    self._ready()


def open_browser(address: str) -> None:
  """Opens the default browser if there is a display."""
  screen = sys.platform != "linux" or any(
    os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
  )
  if screen:
    # In a thread: with some browsers the call blocks until they are closed.
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
