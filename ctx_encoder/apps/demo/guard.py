"""Middleware for every request: who may ask, size and duration of the upload, headers.

A browser sends requests to this server for any page it shows. Three checks tell the
demo's own page from others: Host is a name of this server (DNS rebinding makes another
site's name point here), Origin is that host, and Sec-Fetch-Site is not another site.
"""

import asyncio
import ipaddress
import socket
import time
import urllib.parse
from collections.abc import Collection

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page loads nothing from other servers, and no other page may embed or read it.
HEADERS = {
  "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:;"
  " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Cache-Control": "no-cache",  # so that an update takes effect
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
}

LOCAL = ("localhost", "127.0.0.1", "::1")
ANY_ADDRESS = "*.*.*.*"  # every IPv4 and IPv6 number, but no name


def allowed_hosts(host: str, more: Collection[str] = ()) -> frozenset[str]:
  """Returns the names by which a browser may address a server bound to `host`.

  Args:
    host: the address of --host. A loopback address is addressed by `LOCAL`; others by
      any number, which DNS rebinding cannot use, and by the names of this machine.
    more: further names, such as that of a proxy.
  """
  names = {host.lower(), *LOCAL, *(name.lower() for name in more)}
  if not _is_loopback(host):
    machine = socket.gethostname().lower()
    names |= {ANY_ADDRESS, machine, f"{machine}.local"}
  return frozenset(names)


def _is_loopback(host: str) -> bool:
  return host.lower() == "localhost" or (
    _is_number(host) and ipaddress.ip_address(host).is_loopback
  )


def _is_number(host: str) -> bool:
  try:
    ipaddress.ip_address(host)
  except ValueError:
    return False
  return True


class Guard:
  """Refuses requests of other sites, and large or slow uploads; adds `HEADERS`.

  Status 403: the request was made by another site, or for another host. 413: the body
  is above `max_bytes`, by its Content-Length before it is read, or as soon as more has
  been received. 408: the body was not complete `max_seconds` after its reading began.
  """

  def __init__(
    self, app: ASGIApp, hosts: Collection[str], max_bytes: int, max_seconds: float
  ):
    self._app = app
    self._hosts = hosts
    self._max_bytes = max_bytes
    self._max_seconds = max_seconds

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return

    async def send_with_headers(message: Message) -> None:
      if message["type"] == "http.response.start":
        MutableHeaders(scope=message).update(HEADERS)
      await send(message)

    headers = Headers(scope=scope)
    if refused := self._refused(headers, scope["path"]):
      await JSONResponse({"error": refused}, 403)(scope, receive, send_with_headers)
      return
    body = _Body(receive, headers, self._max_bytes, self._max_seconds)
    await self._app(scope, body.receive, send_with_headers)

  def _refused(self, headers: Headers, path: str) -> str:
    """Returns why the sender of a request may not ask, or an empty string."""
    host = headers.get("host", "")
    name = _name(host)
    if name not in self._hosts and not (
      ANY_ADDRESS in self._hosts and _is_number(name)
    ):
      return (
        f"This server does not answer for the host {name[:100]!r}; start it with"
        " --allow-host to allow a name."
      )
    origin = headers.get("origin")
    if origin is not None and urllib.parse.urlsplit(origin).netloc != host:
      return "Requests from pages of other sites are refused."
    # Following a link to the page is no request of the other site's.
    follows = headers.get("sec-fetch-mode") == "navigate" and not path.startswith(
      "/api"
    )
    site = headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin") and not follows:
      return "Requests from pages of other sites are refused."
    return ""


def _name(host: str) -> str:
  """Returns the name or number in a Host header, without port and brackets."""
  try:
    return (urllib.parse.urlsplit(f"//{host}").hostname or "").rstrip(".")
  except ValueError:
    return ""


class _Body:
  """Receives a request, with limits on the body's size and duration."""

  def __init__(
    self, receive: Receive, headers: Headers, max_bytes: int, max_seconds: float
  ):
    self._receive = receive
    self._max_bytes = max_bytes
    self._max_seconds = max_seconds
    announced = headers.get("content-length", "")
    self._size = int(announced) if announced.isdecimal() else 0  # so far or announced
    self._received = 0
    self._whole = False
    self._deadline: float | None = None

  async def receive(self) -> Message:
    if self._whole:  # only a disconnection can follow
      return await self._receive()
    self._check_size()
    now = time.monotonic()
    self._deadline = self._deadline or now + self._max_seconds
    try:
      message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - now))
    except TimeoutError:
      line = f"The upload took more than {self._max_seconds:g} s."
      raise HTTPException(408, line, {"Connection": "close"}) from None
    self._received += len(message.get("body", b""))
    self._size = max(self._size, self._received)
    self._check_size()
    self._whole = not message.get("more_body", False)
    return message

  def _check_size(self) -> None:
    if self._size > self._max_bytes:
      line = f"The upload is larger than {self._max_bytes / 1e6:g} MB."
      # The rest is not read.
      raise HTTPException(413, line, {"Connection": "close"})
