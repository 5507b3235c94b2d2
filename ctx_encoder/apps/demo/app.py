"""The HTTP API and the page, as an ASGI application."""

import asyncio
import dataclasses
import functools
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, File, Form, HTTPException, Query, Request, Response
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
from ctx_encoder.data import decode, samples
from ctx_encoder.inpaint import BLENDS, STRATEGIES, Inpainter, read_image, read_mask

_PAGE = Path(__file__).parent / "page"
_THUMBNAIL = 160


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a request may ask for.

  Attributes:
    pixels: of a picture, refused by its header, before it is decoded. Neither side may
      be longer than twice their root: a long strip takes minutes to fill.
    bytes: of a request, refused before more of it is read.
    waiting: requests that wait for their turn.
  """

  pixels: int = 50_000_000
  bytes: int = 32_000_000
  waiting: int = 16


class Info(BaseModel):
  """What this server does, and how much."""

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
  """What was wrong, in one line."""

  error: str


Kind = Literal["center", "block", "region", "strokes"]
Seed = Annotated[int, Form(ge=0, lt=2**31, description="Of the network's noise.")]
Side = Annotated[int, Query(ge=1, le=65_536)]
_PNG: dict[int | str, dict[str, Any]] = {
  200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
  400: {"model": Problem, "description": "Picture or mask do not serve."},
  413: {"model": Problem, "description": "The upload is too large."},
  422: {
    "model": Problem,
    "description": "A field is missing or wrong.",
  },
  503: {"model": Problem, "description": "Too many are waiting; see Retry-After."},
}


def make_app(inpainter: Inpainter, limits: Limits | None = None) -> FastAPI:
  """Returns the application that serves one network."""
  limits = limits or Limits()
  turns = Turns(limits.waiting)
  app = FastAPI(
    title="ctx_encoder",
    version=ctx_encoder.__version__,
    description="Fills holes in pictures. Errors are JSON with one line, `error`.",
    docs_url=None,  # these pages load scripts from elsewhere
    redoc_url=None,
  )
  app.add_middleware(Guard, max_bytes=limits.bytes)
  _answer_problems(app)

  @app.post(
    "/api/inpaint",
    response_class=Response,
    responses=_PNG | _PROBLEMS,
    summary="Fill the holes of a picture",
  )
  async def inpaint(
    request: Request,
    image: Annotated[Upload, File(description="JPEG, PNG, WebP, BMP, TIFF or GIF.")],
    mask: Annotated[
      Upload, File(description="A picture of the same size; brighter than half = hole.")
    ],
    strategy: Annotated[str, Form(json_schema_extra={"enum": STRATEGIES})] = "auto",
    blend: Annotated[str, Form(json_schema_extra={"enum": BLENDS})] = "poisson",
    seed: Seed = 0,
  ):
    """Returns the completed picture as PNG; `Server-Timing` tells how long it took."""
    came = time.monotonic()
    async with turns.wait():
      if await request.is_disconnected():
        return Response(status_code=499)  # nobody is there to see it
      waited = time.monotonic() - came
      # The uploads lie on disk until it is their turn: one at a time is in memory.
      files = await image.read(), await mask.read()
      choices = {"strategy": strategy, "blend": blend, "seed": seed}
      png, seconds = await asyncio.to_thread(
        complete, inpainter, *files, limits.pixels, choices
      )
    timing = {"wait": waited} | seconds
    shown = ", ".join(f"{what};dur={1000 * s:.1f}" for what, s in timing.items())
    return Response(png, media_type="image/png", headers={"Server-Timing": shown})

  @app.get("/api/info")
  def info() -> Info:
    """Returns the network's name and what may be asked of it."""
    return Info(
      name=inpainter.name,
      image_size=inpainter.image_size,
      version=ctx_encoder.__version__,
      examples=_examples(),
      max_pixels=limits.pixels,
      max_bytes=limits.bytes,
    )

  @app.get("/api/mask", response_class=Response, responses=_PNG | {422: _PROBLEMS[422]})
  def mask(
    kind: Kind,
    width: Side,
    height: Side,
    seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
  ):
    """Draws a hole, white on black."""
    if width * height > limits.pixels:
      raise HTTPException(422, f"At most {limits.pixels:,} pixels.")
    return _png_response(holes.draw(kind, width, height, seed))

  @app.get("/api/examples/{name}", response_class=Response, responses=_PNG)
  def example(name: str, thumbnail: bool = False):
    """Returns one of the photographs that come with scikit-image."""
    if name not in _examples():
      raise HTTPException(404, f"There is no example {name!r}.")
    photograph = Image.fromarray(samples.pixels(name))
    if thumbnail:
      photograph.thumbnail((2 * _THUMBNAIL, _THUMBNAIL))
    return _png_response(np.asarray(photograph))

  app.mount("/", StaticFiles(directory=_PAGE, html=True))
  return app


def complete(
  inpainter: Inpainter, image: bytes, mask: bytes, max_pixels: int, choices: dict
) -> tuple[bytes, dict[str, float]]:
  """Returns the completed picture as PNG, and seconds by what they went into.

  Raises:
    ValueError: a file is not a picture, or the two do not go together.
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
  # The fastest of its levels: a tenth larger, and several times as fast.
  Image.fromarray(pixels).save(file, "PNG", compress_level=1)
  return file.getvalue()


def _png_response(pixels: np.ndarray) -> Response:
  return Response(_png(pixels), media_type="image/png")


@functools.cache
def _examples() -> tuple[str, ...]:
  """Returns the photographs that are installed."""
  found = []
  for name in samples.PHOTOGRAPHS:
    try:
      samples.pixels(name)
    except (ModuleNotFoundError, OSError):
      continue
    found.append(name)
  return tuple(found)


def _answer_problems(app: FastAPI) -> None:
  """Makes every error an answer with one line."""

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
    return answer(500, "The server failed at this; its terminal says why.")
