"""The HTTP API: filling, progress, ready-made holes, example pictures."""

import asyncio
import dataclasses
import functools
import io
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import (
  APIRouter,
  Depends,
  File,
  Form,
  HTTPException,
  Query,
  Request,
  Response,
)
from fastapi import Path as InPath
from fastapi import UploadFile as Upload
from fastapi.routing import APIRoute
from PIL import Image
from pydantic import BaseModel

import ctx_encoder
from ctx_encoder.apps.demo import holes
from ctx_encoder.apps.demo.examples import EXAMPLES, NAMES, Example, thumbnail
from ctx_encoder.apps.demo.turns import Cancelled, Job, State, Turns
from ctx_encoder.data import decode, landscapes
from ctx_encoder.inpaint import BLENDS, STRATEGIES, Inpainter, read_image, read_mask

_WATCH = 0.2  # seconds between checks whether the client is still there


@dataclasses.dataclass(frozen=True)
class Limits:
  """Limits on requests.

  Attributes:
    pixels: largest picture, checked in its header before it is decoded. No side may
      exceed twice the square root of it: a long strip takes minutes to fill.
    bytes: largest request, checked before more of it is read.
    seconds: longest upload.
    waiting: number of requests that may wait for their turn.
    uploads: number of requests whose upload is read or kept; the others' is not read.
  """

  pixels: int = 50_000_000
  bytes: int = 32_000_000
  seconds: float = 60.0
  waiting: int = 16
  uploads: int = 3


class Service:
  """State shared by all requests of one application."""

  def __init__(self, inpainter: Inpainter, limits: Limits):
    self.inpainter = inpainter
    self.limits = limits
    self.filling = Turns(limits.waiting, limits.uploads)
    self.drawing = Turns(limits.waiting)
    self.jobs: dict[str, Job] = {}  # by the name that the client gave


class Info(BaseModel):
  """Network, choices, limits and examples of this server."""

  name: str
  image_size: int
  version: str
  strategies: tuple[str, ...] = STRATEGIES
  blends: tuple[str, ...] = BLENDS
  holes: tuple[str, ...] = tuple(holes.KINDS)
  examples: tuple[Example, ...] = EXAMPLES
  max_pixels: int
  max_bytes: int


class Progress(BaseModel):
  """What becomes of a request.

  `before` counts the requests before it, `done` is the share of the filling that is
  done. The state of a request that has not arrived or was answered is "unknown".
  """

  state: State = "unknown"
  before: int = 0
  done: float = 0.0


class Problem(BaseModel):
  """An error in one line."""

  error: str


async def _service(request: Request) -> Service:
  return request.app.state.service


Shared = Annotated[Service, Depends(_service)]
Kind = Literal["center", "block", "region", "strokes"]
Seed = Annotated[int, Form(ge=0, lt=2**31, description="For networks with noise.")]
Side = Annotated[int, Query(ge=1, le=65_536)]
_NAME = r"^[A-Za-z0-9-]{1,64}$"
_PROBLEMS = {
  400: "The picture or the mask cannot be used.",
  403: "The request comes from a page of another site.",
  404: "There is no such example.",
  408: "The upload took too long.",
  413: "The upload is too large.",
  422: "A field is missing or invalid.",
  503: "The queue is full; see Retry-After.",
}


def _answers(kind: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
  """Returns the responses of an operation for the schema: a picture, or a problem."""
  schema = {"schema": {"type": "string", "format": "binary"}}
  answers: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": _PROBLEMS[status]}
    for status in (403, *statuses)
  }
  if kind:
    answers[200] = {"content": {kind: schema}}
  return answers


class _Queued(APIRoute):
  """A route whose requests wait for a place before their body is read."""

  def get_route_handler(self) -> Callable:
    handle = super().get_route_handler()

    async def wait_and_handle(request: Request) -> Response:
      service: Service = request.app.state.service
      job = request.state.job = Job()
      name = request.query_params.get("job", "")[:64]
      try:
        async with service.filling.place(job):
          service.jobs.setdefault(name, job)
          return await handle(request)
      finally:
        if service.jobs.get(name) is job:
          del service.jobs[name]

    return wait_and_handle


api = APIRouter(prefix="/api")
_queued = APIRouter(route_class=_Queued)


@_queued.post(
  "/inpaint",
  response_class=Response,
  responses=_answers("image/png", 400, 408, 413, 422, 503),
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
  job: Annotated[
    str | None, Query(pattern=_NAME, description="Names it for /api/progress.")
  ] = None,
):
  """Returns the completed picture as PNG; durations are in the header Server-Timing.

  The work ends when the client closes the connection.
  """
  arrived = time.monotonic()
  async with service.filling.turn(request.state.job):
    waited = time.monotonic() - arrived
    if await request.is_disconnected():
      raise Cancelled
    # Read only now: waiting uploads stay on disk, and one at a time is in memory.
    files = await image.read(), await mask.read()
    await image.close()
    await mask.close()
    choices = {"strategy": strategy, "blend": blend, "seed": seed}
    pixels, current = service.limits.pixels, request.state.job
    work = functools.partial(complete, service.inpainter, *files, pixels, choices)
    png, seconds = await _watched(request, current, work)
  timing = {"wait": waited} | seconds
  header = ", ".join(f"{part};dur={1000 * s:.1f}" for part, s in timing.items())
  return Response(png, media_type="image/png", headers={"Server-Timing": header})


async def _watched(request: Request, job: Job, work: Callable[..., Any]) -> Any:
  """Runs `work(progress=job.report)` in a thread; cancels it when the client goes."""
  running = asyncio.ensure_future(asyncio.to_thread(work, progress=job.report))
  try:
    while not running.done():
      if await request.is_disconnected():
        job.cancel()
      await asyncio.wait({running}, timeout=_WATCH)
    return running.result()
  finally:
    job.cancel()  # also where the server stops


api.include_router(_queued)


@api.get("/progress/{job}", responses=_answers("", 422))
async def progress(service: Shared, job: Annotated[str, InPath(pattern=_NAME)]):
  """Returns what becomes of the request to /api/inpaint of this name."""
  found = service.jobs.get(job)
  if found is None:
    return Progress()
  before = service.filling.before(found)
  return Progress(state=found.state, before=before, done=found.done)


@api.get("/info", responses=_answers(""))
async def info(service: Shared) -> Info:
  """Returns the network's name, and the choices, limits and examples."""
  return Info(
    name=service.inpainter.name,
    image_size=service.inpainter.image_size,
    version=ctx_encoder.__version__,
    max_pixels=service.limits.pixels,
    max_bytes=service.limits.bytes,
  )


@api.get("/mask", response_class=Response, responses=_answers("image/png", 422, 503))
async def mask(
  service: Shared,
  kind: Kind,
  width: Side,
  height: Side,
  seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
):
  """Draws a hole, white on black."""
  if width * height > service.limits.pixels:
    raise HTTPException(422, f"At most {service.limits.pixels:,} pixels.")
  job = Job()
  async with service.drawing.place(job), service.drawing.turn(job):
    png = await asyncio.to_thread(_drawn, kind, width, height, seed)
  return Response(png, media_type="image/png")


@api.get(
  "/examples/{name}",
  response_class=Response,
  responses=_answers("image/webp", 404, 422),
)
def example(name: str, small: bool = False):
  """Returns the picture of one of the examples, or a small version of it."""
  if name not in NAMES:
    raise HTTPException(404, f"There is no example {name!r}.")
  data = thumbnail(name) if small else landscapes.encoded(name)
  return Response(data, media_type="image/webp")


def complete(
  inpainter: Inpainter,
  image: bytes,
  mask: bytes,
  max_pixels: int,
  choices: dict,
  progress: Callable[[float], None],
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
  completed = inpainter(picture, hole, progress=progress, **choices)
  clock.append(time.monotonic())
  encoded = _png(completed)
  clock.append(time.monotonic())
  parts = ("decode", "complete", "encode")
  return encoded, dict(zip(parts, np.diff(clock).tolist(), strict=True))


def _drawn(kind: str, width: int, height: int, seed: int) -> bytes:
  return _png(holes.draw(kind, width, height, seed))


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
