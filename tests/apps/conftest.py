"""The demo's page in a Chromium that is installed."""

import contextlib
import shutil
import urllib.parse

import numpy as np
import pytest
import serving
from PIL import Image

from ctx_encoder.apps import demo

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser():
  playwright = pytest.importorskip("playwright.sync_api")
  path = next(filter(None, map(shutil.which, BROWSERS)), None)
  if path is None:
    pytest.skip("there is no Chromium to show the page")
  flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
  flags += ["--disable-background-networking", "--disable-component-update"]
  with playwright.sync_playwright() as started:
    running = started.chromium.launch(executable_path=path, args=flags)
    yield running
    running.close()


@pytest.fixture(scope="module")
def url():
  app = demo.make_app(serving.inpainter(), demo.Limits(pixels=1024 * 600))
  with serving.running(app) as address:
    yield address


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
  """The file of a picture with some texture, 300x200."""
  draw = np.random.default_rng(0)
  small = Image.fromarray(draw.integers(60, 200, (4, 6, 3), np.uint8))
  path = tmp_path_factory.mktemp("picture") / "holiday.png"
  small.resize((300, 200), Image.Resampling.BICUBIC).save(path)
  return path


@pytest.fixture
def visit(browser, url):
  """Opens the page; fails on errors and on requests to other servers."""
  with contextlib.ExitStack() as stack:
    asked, wrong = [], []

    def opened(**device):
      context = stack.enter_context(contextlib.closing(browser.new_context(**device)))
      page = context.new_page()
      page.on("request", lambda request: asked.append(request.url))
      page.on("pageerror", lambda error: wrong.append(str(error)))
      page.on("console", lambda m: m.type == "error" and wrong.append(m.text))
      page.goto(url)
      page.wait_for_selector("#size:not(:empty)")
      return page

    yield opened
    own = urllib.parse.urlsplit(url).netloc
    fetched = [urllib.parse.urlsplit(one) for one in asked]
    assert {one.netloc for one in fetched if one.scheme != "blob"} == {own}
    assert {one.scheme for one in fetched} <= {"http", "blob"}
    assert wrong == []
