"""Runs the demo in a thread, with a network that needs no compilation."""

import contextlib
import io
import threading

import numpy as np
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from ctx_encoder.apps import demo
from ctx_encoder.apps.demo import server
from ctx_encoder.inpaint import Inpainter

SIDE = 16


def white(images, masks, keys):
  """A network that fills holes with white."""
  return np.where(masks > 0, np.uint8(255), images)


def inpainter(paint=white):
  """Returns an `Inpainter` of 16x16 pixels."""
  return Inpainter(paint, SIDE, name="white <b>")


def client(app, **options):
  """Returns a client in this process, without a socket."""
  return TestClient(app, base_url="http://localhost", **options)


@contextlib.contextmanager
def running(app, **settings):
  """Serves an application on a free port; yields its URL."""
  with demo.bind("127.0.0.1", 0) as bound:
    service = uvicorn.Server(server.settings(app, **settings))
    thread = threading.Thread(target=service.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
      yield server.url(bound)
    finally:
      service.should_exit = True
      thread.join()


def png(pixels):
  """Returns an array as the bytes of a PNG."""
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


def pixels(data):
  """Returns the pixels of an encoded picture."""
  with Image.open(io.BytesIO(data)) as image:
    return np.asarray(image)


def picture(height=24, width=40, seed=0):
  """Returns noise, uint8 `[H, W, 3]`."""
  draw = np.random.default_rng(seed)
  return draw.integers(0, 256, (height, width, 3), np.uint8)


def hole(height=24, width=40):
  """Returns a mask, bool `[H, W]`."""
  mask = np.zeros((height, width), bool)
  mask[6:14, 10:18] = True
  return mask


def form(image=None, mask=None):
  """Returns the files of a request."""
  image = png(picture()) if image is None else image
  mask = png(hole()) if mask is None else mask
  return {"image": ("image.png", image), "mask": ("mask.png", mask)}
