"""What holds for every request: how much it may send, and headers of its answer."""

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page loads nothing from elsewhere, and no other page may frame it.
HEADERS = {
  "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:;"
  " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "Cache-Control": "no-cache",  # asked for anew after an update
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
}


class Guard:
  """Adds `HEADERS`, and refuses uploads above `max_bytes` with status 413.

  What the request announces counts, before any of it is read; and where it announces
  nothing, or less than it sends, what has come.
  """

  def __init__(self, app: ASGIApp, max_bytes: int):
    self._app = app
    self._max_bytes = max_bytes

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    size = int(Headers(scope=scope).get("content-length", 0))
    come = 0

    async def receive_some() -> Message:
      nonlocal come
      if max(size, come) <= self._max_bytes:
        message = await receive()
        come += len(message.get("body", b""))
        if come <= self._max_bytes:
          return message
      raise HTTPException(
        413,
        f"The upload is larger than {self._max_bytes / 1e6:g} MB.",
        {"Connection": "close"},  # nobody reads the rest
      )

    async def send_more(message: Message) -> None:
      if message["type"] == "http.response.start":
        MutableHeaders(scope=message).update(HEADERS)
      await send(message)

    await self._app(scope, receive_some, send_more)
