"""From an application to an address that a browser can open."""

import contextlib
import errno
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable

import uvicorn

from ctx_encoder.apps.demo.app import Limits, make_app
from ctx_encoder.inpaint import Inpainter


def bind(host: str, port: int) -> socket.socket:
  """Claims an address; nobody is answered yet.

  Args:
    host: name or number of one of this machine's addresses.
    port: 0 takes any that is free.

  Raises:
    OSError: it is in use, or not this machine's; the message says what to do.
  """
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    claimed = socket.socket(family, kind, protocol)
  except socket.gaierror as error:
    raise OSError(f"There is no host {host!r}: {error.strerror}.") from error
  try:
    if os.name == "posix":  # a server that has just ended is no obstacle
      claimed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    claimed.bind(address)
    claimed.listen()  # of two that were bound, the second fails only here
  except OSError as error:
    claimed.close()
    if error.errno == errno.EADDRINUSE:
      reason = f"Port {port} of {host} is in use; name another with --port."
    else:
      reason = f"Port {port} of {host} cannot be opened: {error.strerror}."
    raise OSError(reason) from error
  return claimed


def url(bound: socket.socket) -> str:
  """Returns the address to be opened in a browser of this machine."""
  host, port, *_ = bound.getsockname()
  if host in ("0.0.0.0", "::"):  # all addresses
    host = "127.0.0.1" if host == "0.0.0.0" else "::1"
  return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(
  inpainter: Inpainter,
  bound: socket.socket,
  limits: Limits | None = None,
  *,
  ready: Callable[[], None] = lambda: None,
) -> None:
  """Serves page and API until Ctrl-C or SIGTERM.

  Args:
    inpainter: what fills the holes.
    bound: see `bind`.
    limits: see `Limits`.
    ready: called once, when requests are answered.
  """
  app = make_app(inpainter, limits)
  config = uvicorn.Config(
    app, log_level="warning", access_log=False, timeout_graceful_shutdown=5
  )
  server = _Server(config, ready)
  with contextlib.suppress(KeyboardInterrupt):  # it has shut down, and passes it on
    server.run(sockets=[bound])


class _Server(uvicorn.Server):
  def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
    super().__init__(config)
    self._ready = ready

  async def startup(self, sockets: list[socket.socket] | None = None) -> None:
    await super().startup(sockets)
    self._ready()


def open_browser(address: str) -> None:
  """Opens a browser where there is a screen to show it on."""
  screen = sys.platform != "linux" or any(
    os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
  )
  if screen:
    # Some browsers keep the caller waiting until they are closed.
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
