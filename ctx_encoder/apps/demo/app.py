"""The page and its HTTP API as an ASGI application."""

import asyncio
import dataclasses
import functools
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import (
  APIRouter,
  Depends,
  FastAPI,
  File,
  Form,
  HTTPException,
  Query,
  Request,
  Response,
)
from fastapi import UploadFile as Upload
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image
from pydantic import BaseModel
from starlette.exceptions import HTTPException as AnyHTTPException

import ctx_encoder
from ctx_encoder.apps.demo import holes
from ctx_encoder.apps.demo.guard import Guard
from ctx_encoder.apps.demo.turns import Busy, Turns
from ctx_encoder.data import decode, landscapes
from ctx_encoder.inpaint import BLENDS, STRATEGIES, Inpainter, read_image, read_mask

_PAGE = Path(__file__).parent / "page"
_THUMBNAIL = 160


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits on requests.

  Attributes:
    pixels: largest picture, checked in its header before it is decoded. No side may
      exceed twice the square root of it: a long strip takes minutes to fill.
    bytes: largest request, checked before more of it is read.
    waiting: number of requests that may wait for their turn.
  """

  pixels: int = 50_000_000
  bytes: int = 32_000_000
  waiting: int = 16


class Service:
  """State shared by all requests of one application."""

  def __init__(self, inpainter: Inpainter, limits: Limits):
    self.inpainter = inpainter
    self.limits = limits
    self.turns = Turns(limits.waiting)


class Info(BaseModel):
  """Network, choices and limits of this server."""

  name: str
  image_size: int
  version: str
  strategies: tuple[str, ...] = STRATEGIES
  blends: tuple[str, ...] = BLENDS
  holes: tuple[str, ...] = tuple(holes.KINDS)
  examples: tuple[str, ...]
  max_pixels: int
  max_bytes: int


class Problem(BaseModel):
  """An error in one line."""

  error: str


async def _service(request: Request) -> Service:
  return request.app.state.service


Shared = Annotated[Service, Depends(_service)]
Kind = Literal["center", "block", "region", "strokes"]
Seed = Annotated[int, Form(ge=0, lt=2**31, description="For networks with noise.")]
Side = Annotated[int, Query(ge=1, le=65_536)]
_PNG: dict[int | str, dict[str, Any]] = {
  200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
  400: {"model": Problem, "description": "The picture or the mask cannot be used."},
  413: {"model": Problem, "description": "The upload is too large."},
  422: {"model": Problem, "description": "A field is missing or invalid."},
  503: {"model": Problem, "description": "The queue is full; see Retry-After."},
}

api = APIRouter(prefix="/api")


def make_app(inpainter: Inpainter, limits: Limits | None = None) -> FastAPI:
  """Returns the application that serves one network."""
  limits = limits or Limits()
  app = FastAPI(
    title="ctx_encoder",
    version=ctx_encoder.__version__,
    description="Fills holes in pictures. Errors are JSON with one line, `error`.",
    docs_url=None,  # these pages load scripts from other servers
    redoc_url=None,
  )
  app.state.service = Service(inpainter, limits)
  app.add_middleware(Guard, max_bytes=limits.bytes)
  _handle_errors(app)
  app.include_router(api)
  app.mount("/", StaticFiles(directory=_PAGE, html=True))
  return app


@api.post(
  "/inpaint",
  response_class=Response,
  responses=_PNG | _PROBLEMS,
  summary="Fill the holes of a picture",
)
async def inpaint(
  request: Request,
  service: Shared,
  image: Annotated[Upload, File(description="JPEG, PNG, WebP, BMP, TIFF or GIF.")],
  mask: Annotated[
    Upload, File(description="A picture of the same size; bright pixels are the hole.")
  ],
  strategy: Annotated[str, Form(json_schema_extra={"enum": STRATEGIES})] = "auto",
  blend: Annotated[str, Form(json_schema_extra={"enum": BLENDS})] = "poisson",
  seed: Seed = 0,
):
  """Returns the completed picture as PNG; durations are in the header Server-Timing."""
  arrived = time.monotonic()
  async with service.turns.wait():
    if await request.is_disconnected():
      return Response(status_code=499)
    waited = time.monotonic() - arrived
    # Read only now: waiting uploads stay on disk, and one at a time is in memory.
    files = await image.read(), await mask.read()
    choices = {"strategy": strategy, "blend": blend, "seed": seed}
    png, seconds = await asyncio.to_thread(
      complete, service.inpainter, *files, service.limits.pixels, choices
    )
  timing = {"wait": waited} | seconds
  header = ", ".join(f"{part};dur={1000 * s:.1f}" for part, s in timing.items())
  return Response(png, media_type="image/png", headers={"Server-Timing": header})


@api.get("/info")
def info(service: Shared) -> Info:
  """Returns the network's name, and the choices and limits of requests."""
  return Info(
    name=service.inpainter.name,
    image_size=service.inpainter.image_size,
    version=ctx_encoder.__version__,
    examples=_examples(),
    max_pixels=service.limits.pixels,
    max_bytes=service.limits.bytes,
  )


@api.get("/mask", response_class=Response, responses=_PNG | {422: _PROBLEMS[422]})
def mask(
  service: Shared,
  kind: Kind,
  width: Side,
  height: Side,
  seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
):
  """Draws a hole, white on black."""
  if width * height > service.limits.pixels:
    raise HTTPException(422, f"At most {service.limits.pixels:,} pixels.")
  return _png_response(holes.draw(kind, width, height, seed))


@api.get("/examples/{name}", response_class=Response, responses=_PNG)
def example(name: str, thumbnail: bool = False):
  """Returns one of the embedded photographs."""
  if name not in _examples():
    raise HTTPException(404, f"There is no example {name!r}.")
  photograph = Image.fromarray(landscapes.read(name))
  if thumbnail:
    photograph.thumbnail((2 * _THUMBNAIL, _THUMBNAIL))
  return _png_response(np.asarray(photograph))


def complete(
  inpainter: Inpainter, image: bytes, mask: bytes, max_pixels: int, choices: dict
) -> tuple[bytes, dict[str, float]]:
  """Returns the completed picture as PNG, and the duration of each part in seconds.

  Raises:
    ValueError: a file is not a picture, or image and mask do not match.
  """
  clock = [time.monotonic()]
  _named("image", functools.partial(_check_sides, most=2 * max_pixels**0.5), image)
  picture = _named("image", functools.partial(read_image, max_pixels=max_pixels), image)
  hole = _named("mask", functools.partial(read_mask, max_pixels=max_pixels), mask)
  clock.append(time.monotonic())
  completed = inpainter(picture, hole, **choices)
  clock.append(time.monotonic())
  encoded = _png(completed)
  clock.append(time.monotonic())
  parts = ("decode", "complete", "encode")
  return encoded, dict(zip(parts, np.diff(clock).tolist(), strict=True))


def _check_sides(data: bytes, most: float) -> None:
  width, height = decode.dimensions(data)
  if max(width, height) > most:
    raise ValueError(f"{width}x{height} pixels, a side above {most:.0f}")


def _named(field: str, read: Callable[[bytes], Any], data: bytes) -> Any:
  try:
    return read(data)
  except ValueError as error:
    raise ValueError(f"{field}: {error}") from error


def _png(pixels: np.ndarray) -> bytes:
  file = io.BytesIO()
  # The fastest compression: files a tenth larger, several times as fast.
  Image.fromarray(pixels).save(file, "PNG", compress_level=1)
  return file.getvalue()


def _png_response(pixels: np.ndarray) -> Response:
  return Response(_png(pixels), media_type="image/png")


def _examples() -> tuple[str, ...]:
  """Returns the names of photographs that no network of the package was trained on."""
  return landscapes.split()[1][:6]


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

  @app.exception_handler(Exception)
  async def _(request: Request, error: Exception):
    return answer(500, "The server failed; its terminal shows the reason.")
