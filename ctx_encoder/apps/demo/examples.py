"""Example pictures of the page, with holes to start from.

They are embedded landscapes that the network of the package was not trained on.
"""

import functools
import io

from PIL import Image
from pydantic import BaseModel

from ctx_encoder.data import landscapes

_THUMBNAIL = (320, 160)


class Stroke(BaseModel):
  """A stroke of the brush, in shares of the picture's height from its top left."""

  radius: float
  points: list[tuple[float, float]]


class Example(BaseModel):
  """A picture and a hole in it."""

  name: str
  title: str
  strokes: list[Stroke]


def _example(name: str, title: str, *strokes: tuple) -> Example:
  return Example(
    name=name,
    title=title,
    strokes=[Stroke(radius=radius, points=points) for radius, *points in strokes],
  )


EXAMPLES = (
  _example("sky8", "peak without the dark cloud", (0.1, (1.2, 0.33), (1.62, 0.36))),
  _example("mountain1", "lake with a scratch", (0.008, (0.2, 0.2), (1.8, 0.8))),
  _example("badlands5", "dunes without the bushes", (0.05, (0.86, 0.58), (0.96, 0.59))),
  _example("sea8", "cliff without the hut", (0.05, (1.14, 0.13), (1.17, 0.13))),
  _example("fields5", "field without a cypress", (0.07, (0.95, 0.5), (0.95, 0.87))),
  _example("forest1", "ridge without the dark cloud", (0.1, (0.66, 0.07), (0.84, 0.1))),
)
NAMES = tuple(one.name for one in EXAMPLES)


@functools.cache
def thumbnail(name: str) -> bytes:
  """Returns a small version of the picture of one of `NAMES`, as WebP."""
  picture = Image.fromarray(landscapes.read(name))
  picture.thumbnail(_THUMBNAIL)
  file = io.BytesIO()
  picture.save(file, "WEBP", quality=80)
  return file.getvalue()
