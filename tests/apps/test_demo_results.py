"""Masks, results, several pictures and progress on the page, in a browser."""

import contextlib
import io
import time

import numpy as np
import pytest
import serving
from browsing import (
  PHONE,
  SCREEN,
  changed,
  colors,
  fill,
  hole,
  load,
  paint,
  saved,
  shows,
)
from PIL import Image

from ctx_encoder.apps import demo

pytestmark = pytest.mark.slow


# Masks, results


def test_masks_are_saved_and_opened(visit, picture, tmp_path):
  page = visit(**SCREEN)
  load(page, picture)
  paint(page, (0.2, 0.3), (0.6, 0.7))
  mask = hole(page)
  path = tmp_path / "mask.png"
  Image.fromarray(mask).save(path)
  page.click("#clear")
  page.set_input_files("#mask", path)
  page.wait_for_selector("#start:enabled")
  np.testing.assert_array_equal(hole(page), mask)
  assert (changed(fill(page), picture) == mask).all()
  painted = np.zeros((200, 300, 4), np.uint8)  # red paint on nothing
  painted[mask] = (255, 0, 0, 255)
  erased = np.full((200, 300, 4), (40, 90, 10, 255), np.uint8)
  erased[mask, 3] = 0
  for layer in (painted, erased):
    page.click("#clear")
    Image.fromarray(layer).save(path)
    page.set_input_files("#mask", path)
    page.wait_for_selector("#start:enabled")
    np.testing.assert_array_equal(hole(page), mask)
  Image.fromarray(mask[1:]).save(path)
  page.set_input_files("#mask", path)
  page.wait_for_selector("#status.bad")
  assert "mask.png: it has 300 \N{MULTIPLICATION SIGN} 199 pixels" in page.inner_text(
    "#message"
  )


def test_the_divider_compares(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  paint(page, (0.1, 0.5), (0.9, 0.5))
  fill(page)
  page.mouse.move(0, 0)

  def line():
    shot = colors(page, "#pair")
    return (shot[shot.shape[0] // 2] > 240).all(1)  # the network fills with white

  assert line().mean() > 0.5
  page.fill("#divider", "100")
  assert not line().any()  # nor the divider
  x, y, width, height = (
    page.locator("#pair").bounding_box()[k] for k in ("x", "y", "width", "height")
  )
  page.mouse.move(x + 0.2 * width, y + height / 2)
  page.mouse.down()
  page.mouse.move(x + 0.5 * width, y + height / 2, steps=4)
  page.mouse.up()
  assert float(page.input_value("#divider")) == pytest.approx(50, abs=1)
  left, right = np.split(line()[: len(line()) // 2 * 2], 2)
  assert left.mean() < 0.03
  assert right.mean() > 0.5
  page.focus("#divider")
  page.keyboard.press("ArrowLeft")
  assert float(page.input_value("#divider")) < 50


def test_the_result_is_copied(visit, picture, url):
  page = visit(**SCREEN)
  page.context.grant_permissions(["clipboard-read", "clipboard-write"])
  load(page, picture)
  paint(page, (0.2, 0.5), (0.3, 0.5))
  completed = fill(page)
  page.click("#copy")
  page.wait_for_selector("#message:text('clipboard')")
  data = page.evaluate("""async () => {
    const [item] = await navigator.clipboard.read();
    const blob = await item.getType("image/png");
    return [...new Uint8Array(await blob.arrayBuffer())];
  }""")
  np.testing.assert_array_equal(serving.pixels(bytes(data))[..., :3], completed)


# Several pictures


def test_several_pictures(visit, picture, tmp_path):
  page = visit(**SCREEN)
  other, broken = tmp_path / "other.png", tmp_path / "broken.png"
  with Image.open(picture) as image:
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other)
  broken.write_text("no picture")
  load(page, picture, broken, other)
  assert "broken.png" in page.inner_text("#message")
  buttons = page.locator("#pictures button")
  assert buttons.count() == 2
  paint(page, (0.2, 0.5))
  first = hole(page)
  buttons.nth(1).click()
  page.wait_for_selector("#start:disabled")
  paint(page, (0.7, 0.3))
  second = hole(page)
  page.click("#fill-all")
  page.wait_for_selector("#pictures button.completed >> nth=1")
  page.wait_for_selector("#start:text-is('Fill the hole')")
  np.testing.assert_array_equal(changed(saved(page, "#download"), other), second)
  buttons.nth(0).click()
  page.wait_for_selector("#size:not(:empty)")
  page.wait_for_timeout(200)
  np.testing.assert_array_equal(hole(page), first)
  np.testing.assert_array_equal(changed(saved(page, "#download"), picture), first)
  files = []
  page.on("download", lambda file: files.append(file.suggested_filename))
  page.click("#download-all")
  while len(files) < 2:
    page.wait_for_timeout(50)
  assert sorted(files) == ["holiday_completed.png", "other_completed.png"]
  page.click("#close")
  page.wait_for_selector("#queue", state="hidden")
  page.wait_for_timeout(200)
  np.testing.assert_array_equal(hole(page), second)


def test_examples_come_with_holes(visit):
  page = visit(**SCREEN)
  for example in page.locator("#examples button").all():
    example.click()
    page.wait_for_selector(shows(1024, 512))
    page.wait_for_selector("#start:enabled")
    page.wait_for_timeout(200)
    assert 0.002 < hole(page).mean() < 0.1
    assert page.locator("#queue").is_hidden()


# Progress and refusals


def done(page):
  return page.evaluate("document.querySelector('#progress').value")


@pytest.fixture
def slow_url():
  """A server whose network takes 0.5 s for a batch; yields its URL and its calls."""
  calls = []

  def paint_slowly(images, masks, keys):
    calls.append(time.monotonic())
    time.sleep(0.5)
    return serving.white(images, masks, keys)

  app = demo.make_app(serving.inpainter(paint_slowly))
  with serving.running(app) as address:
    yield address, calls


def test_progress_and_stop(browser, slow_url, picture):
  address, calls = slow_url
  with contextlib.closing(browser.new_context(**SCREEN)) as context:
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#size:not(:empty)")
    load(page, picture)
    page.select_option("#strategy", "tiles")
    page.fill("#radius", "1")
    paint(page, (0.1, 0.3), (0.9, 0.3), (0.1, 0.8), (0.9, 0.8))
    page.click("#start")
    page.wait_for_selector("#progress", state="visible")
    share = done(page)
    assert 0 < share < 1
    assert " %" in page.inner_text("#message")
    while done(page) <= share:
      page.wait_for_timeout(50)
    page.click("#start:text-is('Stop')")
    page.wait_for_selector("#message:text-is('Stopped.')")
    page.wait_for_timeout(1000)
    stopped = len(calls)
    page.wait_for_timeout(1200)
    assert len(calls) == stopped  # the server stopped, too
    page.click("#clear")
    paint(page, (0.5, 0.5))
    page.select_option("#strategy", "crops")
    assert changed(fill(page), picture).any()


def test_refusals_are_seen_on_a_phone(visit, picture, tmp_path):
  page = visit(**PHONE)
  load(page, picture)
  large = tmp_path / "large.png"
  Image.new("RGB", (1024, 700)).save(large)
  page.evaluate("scrollTo(0, 0)")
  page.set_input_files("#file", large)
  page.wait_for_selector("#status.bad")
  box = page.locator("#status").bounding_box()
  assert 0 <= box["x"] <= box["x"] + box["width"] <= 390
  assert 0 <= box["y"] <= box["y"] + box["height"] <= 844
  page.click("#dismiss")
  assert page.locator("#status").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "device"), [("1280", SCREEN), ("390", PHONE)])
def test_pictures_of_the_page(visit, tmp_path, name, device, scheme):
  """Keeps screenshots in the temporary folder of the test."""
  page = visit(**device, color_scheme=scheme)
  page.wait_for_timeout(300)
  page.screenshot(path=tmp_path / f"{name}-{scheme}-start.png", full_page=True)
  fill(page)
  page.click("#keys summary")
  page.fill("#divider", "40")
  shot = page.screenshot(path=tmp_path / f"{name}-{scheme}.png", full_page=True)
  with Image.open(io.BytesIO(shot)) as image:
    paper = np.asarray(image.convert("L"))[:3].mean()
  assert (paper > 200) == (scheme == "light")
  root = "document.documentElement"
  assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
