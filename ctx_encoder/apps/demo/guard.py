"""Middleware for every request: limit on the upload, headers of the response."""

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page loads nothing from other servers, and no other page may embed it.
HEADERS = {
  "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:;"
  " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "Cache-Control": "no-cache",  # so that an update takes effect
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
}


class Guard:
  """Adds `HEADERS`, and refuses requests above `max_bytes` with status 413.

  A request is refused by its Content-Length before its body is read, or, without a
  correct Content-Length, as soon as more than `max_bytes` have been received.
  """

  def __init__(self, app: ASGIApp, max_bytes: int):
    self._app = app
    self._max_bytes = max_bytes

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    announced = int(Headers(scope=scope).get("content-length", 0))
    received = 0

    async def receive_limited() -> Message:
      nonlocal received
      if max(announced, received) <= self._max_bytes:
        message = await receive()
        received += len(message.get("body", b""))
        if received <= self._max_bytes:
          return message
      raise HTTPException(
        413,
        f"The upload is larger than {self._max_bytes / 1e6:g} MB.",
        {"Connection": "close"},  # the rest is not read
      )

    async def send_with_headers(message: Message) -> None:
      if message["type"] == "http.response.start":
        MutableHeaders(scope=message).update(HEADERS)
      await send(message)

    await self._app(scope, receive_limited, send_with_headers)
