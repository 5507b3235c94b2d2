"""Gestures on the demo's page in a browser, and what it then holds."""

import io
import itertools

import numpy as np
from PIL import Image

SCREEN = {"viewport": {"width": 1280, "height": 900}}
PHONE = {
  "viewport": {"width": 390, "height": 844},
  "device_scale_factor": 2,
  "has_touch": True,
  "is_mobile": True,
}


def load(page, *paths):
  """Opens pictures of 300x200 pixels, and turns off blending."""
  page.set_input_files("#file", paths)
  page.wait_for_selector(shows(300, 200))
  page.select_option("#blend", "none")
  page.wait_for_timeout(100)  # until the canvas has its new size


def shows(width, height):
  """Returns a selector for the displayed size of the picture."""
  return f"#size:text-is('{width} \N{MULTIPLICATION SIGN} {height}')"


def at(page, x, y):
  """Returns a point of the picture, given in shares of its size, on the page."""
  box = page.locator("#canvas").bounding_box()
  return box["x"] + x * box["width"], box["y"] + y * box["height"]


def paint(page, *points):
  """Draws a stroke with the mouse."""
  page.mouse.move(*at(page, *points[0]))
  page.mouse.down()
  for point in points[1:]:
    page.mouse.move(*at(page, *point), steps=8)
  page.mouse.up()


def touch(page, *points):
  """Draws a stroke with a finger."""
  session = page.context.new_cdp_session(page)

  def send(kind, fingers):
    session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

  for number, point in enumerate(points):
    x, y = at(page, *point)
    send("touchMove" if number else "touchStart", [{"x": x, "y": y}])
  send("touchEnd", [])


def fill(page):
  """Presses the button; returns the completed picture."""
  with page.expect_response("**/api/inpaint?*"):
    page.click("#start")
  page.wait_for_selector("#start:text-is('Fill the hole')")
  return saved(page, "#download", "_completed.png")


def saved(page, button, ending=".png"):
  """Presses a button that saves a picture; returns its pixels."""
  with page.expect_download() as found:
    page.click(button)
  assert found.value.suggested_filename.endswith(ending)
  with Image.open(found.value.path()) as image:
    return np.asarray(image)


def changed(completed, path):
  with Image.open(path) as image:
    return (completed != np.asarray(image)).any(2)


def stroke(radius, *points, width=300, height=200):
  """Returns the pixels within `radius` of a line through points in shares."""
  y, x = np.mgrid[:height, :width] + 0.5
  near = np.zeros((height, width), bool)
  for (ax, ay), (bx, by) in itertools.pairwise(points):
    ax, bx, ay, by = ax * width, bx * width, ay * height, by * height
    along = (x - ax) * (bx - ax) + (y - ay) * (by - ay)
    t = np.clip(along / max((bx - ax) ** 2 + (by - ay) ** 2, 1e-9), 0, 1)
    near |= np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)) <= radius
  return near


def radius(page):
  """Returns the brush's radius in pixels of the 300x200 picture."""
  return 2 * 20 ** float(page.input_value("#radius"))


# Keeps the next file that the page makes, instead of the browser's download, which has
# once not begun within 30 s after a dozen others, on a machine that was busy.
_KEEP = """() => {
  const { createObjectURL } = URL;
  window.kept = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error("the page made no file in 30 s")), 30_000);
    HTMLAnchorElement.prototype.click = () => {}; // above HTMLElement's, until deleted
    URL.createObjectURL = (blob) => {
      URL.createObjectURL = createObjectURL;
      setTimeout(() => delete HTMLAnchorElement.prototype.click);
      blob.arrayBuffer().then((bytes) => resolve([...new Uint8Array(bytes)]));
      return createObjectURL.call(URL, blob);
    };
  });
}"""


def hole(page):
  """Returns the hole that is painted, as the page saves it."""
  page.evaluate(_KEEP)
  page.click("#save-mask")
  with Image.open(io.BytesIO(bytes(page.evaluate("() => window.kept")))) as image:
    return np.asarray(image)[..., 0] > 127


def colors(page, selector="#canvas"):
  with Image.open(io.BytesIO(page.locator(selector).screenshot())) as image:
    return np.asarray(image.convert("RGB")).astype(int)
