"""The page's tools in a browser: undo, redo, zoom, pan, keys."""

import numpy as np
import pytest
from browsing import (
  PHONE,
  SCREEN,
  at,
  changed,
  colors,
  fill,
  hole,
  load,
  paint,
  radius,
  saved,
  stroke,
)

pytestmark = pytest.mark.slow


# Undo and redo


def test_redo(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  paint(page, (0.1, 0.2), (0.3, 0.2))
  one = hole(page)
  paint(page, (0.5, 0.8), (0.9, 0.8))
  both = hole(page)
  for back, again in (
    ("Control+z", "Control+Shift+Z"),
    ("Control+z", "Control+y"),
    ("Control+Z", "Control+Y"),  # as with Caps Lock
    ("Control+Z", "Control+Shift+z"),
  ):
    page.keyboard.press(back)
    np.testing.assert_array_equal(hole(page), one)
    page.keyboard.press(again)
    np.testing.assert_array_equal(hole(page), both)
  assert page.locator("#redo").is_disabled()
  page.click("#undo")
  page.click("#redo")
  np.testing.assert_array_equal(hole(page), both)
  page.click("#undo")
  paint(page, (0.5, 0.5))
  assert page.locator("#redo").is_disabled()  # a new stroke ends what was undone


def test_the_mask_is_downloaded(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  paint(page, (0.1, 0.2), (0.3, 0.2))
  downloaded = saved(page, "#save-mask", "holiday_mask.png")
  np.testing.assert_array_equal(downloaded[..., 0] > 127, hole(page))


def test_undo_leads_back_to_the_picture_before(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  paint(page, (0.2, 0.5), (0.3, 0.5))
  first_hole = hole(page)
  first = fill(page)
  page.click("#go-on")
  page.wait_for_selector("#pair", state="hidden")
  assert page.locator("#start").is_disabled()
  paint(page, (0.7, 0.5))
  page.click("#undo")
  page.click("#undo")
  page.wait_for_selector("#pair", state="visible")
  np.testing.assert_array_equal(hole(page), first_hole)
  np.testing.assert_array_equal(saved(page, "#download"), first)
  page.keyboard.press("Control+y")
  page.wait_for_selector("#pair", state="hidden")
  page.keyboard.press("Control+y")
  second = fill(page)
  np.testing.assert_array_equal(second[:, :150], first[:, :150])
  assert changed(second, picture)[:, 150:].any()


def test_without_a_hole_nothing_can_be_filled(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  paint(page, (0.4, 0.5), (0.5, 0.5))
  assert page.locator("#start").is_enabled()
  page.keyboard.press("e")
  page.fill("#radius", "0.9")
  paint(page, (0.4, 0.5), (0.5, 0.5))
  assert page.locator("#start").is_disabled()
  page.keyboard.press("Control+z")
  assert page.locator("#start").is_enabled()
  page.keyboard.press("m")
  paint(page, (0.1, 0.5), (0.99, 0.5))  # moves the hole out of the picture
  assert page.locator("#start").is_disabled()


# Zoom and pan


def view(page):
  return int(page.inner_text("#zoom").split()[0])


def test_wheel_and_space_drag(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  page.mouse.move(*at(page, 0.5, 0.5))
  page.mouse.wheel(0, -600)
  page.wait_for_selector("#zoom:not(:text-is('100 %'))")
  zoom = view(page) / 100
  assert zoom > 2
  paint(page, (0.5, 0.5))
  found = hole(page)
  # The brush is as large on the screen, so finer in the picture.
  assert found.sum() == pytest.approx(np.pi * (radius(page) / zoom) ** 2, rel=0.2)
  rows, columns = np.nonzero(found)
  assert (rows.mean(), columns.mean()) == pytest.approx((99.5, 149.5), abs=1.5)
  # Panning by a quarter of the picture's width moves what is under the pointer.
  page.mouse.move(*at(page, 0.5, 0.5))
  page.keyboard.down("Space")
  paint(page, (0.5, 0.5), (0.25, 0.5))
  page.keyboard.up("Space")
  np.testing.assert_array_equal(hole(page), found)
  page.click("#clear")
  paint(page, (0.5, 0.5))
  _, columns = np.nonzero(hole(page))
  assert columns.mean() == pytest.approx(149.5 + 75 / zoom, abs=1.5)
  page.keyboard.press("0")
  assert view(page) == 100
  page.mouse.wheel(0, 300)  # scrolls the page
  page.wait_for_timeout(100)
  assert view(page) == 100


def test_zoom_shows_the_same_part_of_the_result(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  paint(page, (0.5, 0.5))
  fill(page)
  page.click("#in")
  page.click("#in")
  page.click("#clear")
  page.mouse.move(0, 0)
  page.wait_for_timeout(200)
  original = colors(page)
  page.fill("#divider", "100")  # all original
  compared = colors(page, "#pair")
  assert original.shape == compared.shape
  assert abs(original - compared)[5:-5, 5:-5].mean() < 3


def test_two_fingers_zoom_and_pan(visit, picture):
  page = visit(**PHONE)
  load(page, picture)
  page.locator("#canvas").scroll_into_view_if_needed()
  session = page.context.new_cdp_session(page)

  def send(kind, *points):
    where = [at(page, *point) for point in points]
    touches = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(where)]
    session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

  send("touchStart", (0.45, 0.5))
  send("touchStart", (0.45, 0.5), (0.55, 0.5))
  for spread in (0.1, 0.15, 0.2):
    send("touchMove", (0.5 - spread, 0.5), (0.5 + spread, 0.5))
  send("touchEnd")
  assert view(page) == pytest.approx(400, rel=0.1)
  assert page.locator("#start").is_disabled()  # fingers that zoom do not paint
  send("touchStart", (0.5, 0.5))
  send("touchEnd")
  rows, columns = np.nonzero(hole(page))
  assert (rows.mean(), columns.mean()) == pytest.approx((99.5, 149.5), abs=3)


# Keys


def test_keys_of_the_brush(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  before = radius(page)
  page.keyboard.press("]")
  page.keyboard.press("]")
  larger = radius(page)
  page.keyboard.press("[")
  assert before < radius(page) < larger
  for key, tool in (("e", "eraser"), ("b", "brush"), ("M", "move")):
    page.keyboard.press(key)
    assert page.get_attribute(f"#{tool}", "aria-pressed") == "true"
    assert page.locator("[aria-label=Tool] [aria-pressed=true]").count() == 1


def test_a_hole_is_made_and_moved_with_the_keyboard(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  page.focus("#brush")
  for _ in range(30):  # to the picture, by Tab
    if page.evaluate("document.activeElement.id") == "canvas":
      break
    page.keyboard.press("Shift+Tab")
  assert page.evaluate("document.activeElement.id") == "canvas"
  assert page.locator("#ring").is_visible()
  page.keyboard.press("Enter")
  for _ in range(4):
    page.keyboard.press("ArrowRight")
  page.keyboard.press("Enter")
  page.keyboard.press("ArrowDown")
  end = 0.5 + 2 * radius(page) / 300
  expected = stroke(radius(page), (0.5, 0.5), (end, 0.5))
  made = hole(page)
  assert (made != expected).mean() < 0.005
  page.focus("#canvas")
  page.keyboard.press("m")
  for _ in range(6):
    page.keyboard.press("ArrowUp")
  up = round(3 * radius(page))
  moved = hole(page)
  assert (np.roll(made, -up, 0) != moved).mean() < 0.01
  assert not (made & moved).any()
  page.keyboard.press("Control+z")
  np.testing.assert_array_equal(hole(page), made)
  page.keyboard.press("Control+y")
  page.focus("#start")
  with page.expect_response("**/api/inpaint?*"):
    page.keyboard.press("Enter")
  page.wait_for_selector("#pair", state="visible")
  assert (changed(saved(page, "#download"), picture) != moved).mean() < 0.01
