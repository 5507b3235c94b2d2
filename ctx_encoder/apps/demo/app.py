"""The page and its HTTP API as an ASGI application."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException as AnyHTTPException

import ctx_encoder
from ctx_encoder.apps.demo.api import Limits, Service, api
from ctx_encoder.apps.demo.guard import LOCAL, Guard
from ctx_encoder.apps.demo.turns import Busy, Cancelled
from ctx_encoder.inpaint import Inpainter

_PAGE = Path(__file__).parent / "page"


def make_app(
  inpainter: Inpainter, limits: Limits | None = None, hosts: Collection[str] = LOCAL
) -> FastAPI:
  """Returns the application that serves one network.

  Args:
    inpainter: fills the holes.
    limits: limits on requests; None = defaults.
    hosts: names by which browsers may address it, see `guard.allowed_hosts`.
  """
  limits = limits or Limits()
  app = FastAPI(
    title="ctx_encoder",
    version=ctx_encoder.__version__,
    description="Fills holes in pictures. Errors are JSON with one line, `error`.",
    docs_url=None,  # these pages load scripts from other servers
    redoc_url=None,
  )
  app.state.service = Service(inpainter, limits)
  app.add_middleware(
    Guard, hosts=hosts, max_bytes=limits.bytes, max_seconds=limits.seconds
  )
  _handle_errors(app)
  app.include_router(api)
  files = StaticFiles(directory=_PAGE)

  # Routes rather than a mount, which would answer wrong methods of the API with 404.
  async def page(request: Request) -> Response:
    name = request.path_params.get("name", "index.html")
    return await files.get_response(name, request.scope)

  for path in ("/", "/{name}"):
    app.add_route(path, page, ["GET"], include_in_schema=False)
  return app


def _handle_errors(app: FastAPI) -> None:
  """Turns every exception into a `Problem`."""

  def answer(status: int, line: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": " ".join(line.split())}, status, headers)

  @app.exception_handler(AnyHTTPException)
  async def _(request: Request, error: AnyHTTPException):
    return answer(error.status_code, error.detail, error.headers)

  @app.exception_handler(RequestValidationError)
  async def _(request: Request, error: RequestValidationError):
    fields = (f"{found['loc'][-1]}: {found['msg']}" for found in error.errors())
    return answer(422, "; ".join(fields))

  @app.exception_handler(ValueError)
  async def _(request: Request, error: ValueError):
    return answer(400, str(error))

  @app.exception_handler(Busy)
  async def _(request: Request, error: Busy):
    return answer(503, str(error), {"Retry-After": str(error.retry_after)})

  @app.exception_handler(Cancelled)
  async def _(request: Request, error: Cancelled):
    return Response(status_code=499)  # nobody reads it

  @app.exception_handler(Exception)
  async def _(request: Request, error: Exception):
    return answer(500, "The server failed; its terminal shows the reason.")
