"""The demo's page in a browser, on a screen and on a phone."""

import io

import numpy as np
import pytest
from browsing import (
  PHONE,
  SCREEN,
  changed,
  fill,
  load,
  paint,
  radius,
  shows,
  stroke,
  touch,
)
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
  ("name", "device", "draw"), [("screen", SCREEN, paint), ("phone", PHONE, touch)]
)
def test_only_the_stroke_is_filled(visit, picture, tmp_path, name, device, draw):
  page = visit(**device)
  load(page, picture)
  assert page.locator("#start").is_disabled()
  line = (0.2, 0.3), (0.4, 0.5), (0.7, 0.4)
  draw(page, *line)
  hole = changed(fill(page), picture)
  inner, outer = (stroke(radius(page) + d, *line) for d in (-1.5, 1.5))
  assert hole[inner].all()
  assert not hole[~outer].any()
  assert "to fill" in page.inner_text("#time")
  # Both frames have the same size, side by side or one above the other.
  one, other = (page.locator(i).bounding_box() for i in ("#frame", "#result"))
  assert one["width"] == pytest.approx(other["width"])
  assert one["height"] == pytest.approx(other["height"])
  beside = one["y"] == pytest.approx(other["y"])
  assert beside == (name == "screen")
  root = "document.documentElement"
  assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
  shot = Image.open(io.BytesIO(page.screenshot(path=tmp_path / f"{name}.png")))
  assert len(shot.getcolors(2**24)) > 1000  # the pictures are visible


def test_strategies_and_blending(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  paint(page, (0.5, 0.5), (0.6, 0.5))
  holes = []
  for strategy in ("auto", "whole", "crops", "tiles"):
    page.select_option("#strategy", strategy)
    assert strategy in page.inner_text("#meaning")
    completed = fill(page)
    holes.append(changed(completed, picture))
    assert holes[-1].sum() > 100
    np.testing.assert_array_equal(holes[-1], holes[0])
  page.select_option("#blend", "feather")
  assert "feather" in page.inner_text("#meaning")
  faded = fill(page)
  assert (faded != completed).any()
  page.reload()
  page.wait_for_selector("#size:not(:empty)")
  assert page.input_value("#blend") == "poisson"


def test_undo_clear_and_eraser(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  first, second = ((0.1, 0.2), (0.3, 0.2)), ((0.5, 0.8), (0.9, 0.8))
  paint(page, *first)
  paint(page, *second)
  page.click("#undo")
  only_first = changed(fill(page), picture)
  assert only_first[:, :130].any()
  assert not only_first[:, 130:].any()
  page.click("#clear")
  assert page.locator("#start").is_disabled()
  page.keyboard.press("Control+z")  # undoes Clear
  np.testing.assert_array_equal(changed(fill(page), picture), only_first)
  page.click("#eraser")
  page.fill("#radius", "1")
  paint(page, (0.1, 0.2), (0.15, 0.2))
  rest = changed(fill(page), picture)
  assert (only_first & ~rest).any()
  assert not (rest & ~only_first).any()
  page.click("#undo")
  page.click("#undo")
  assert page.locator("#start").is_disabled()
  assert page.locator("#undo").is_disabled()


def test_the_brush_has_a_size(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  areas = []
  for size in ("0.1", "0.9"):
    page.fill("#radius", size)
    paint(page, (0.5, 0.5))
    areas.append(changed(fill(page), picture).sum())
    assert areas[-1] == pytest.approx(np.pi * radius(page) ** 2, rel=0.15)
    page.click("#undo")


def test_ready_made_holes(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  for kind in ("Center", "Block", "Region", "Strokes"):
    paint(page, (0.02, 0.02), (0.03, 0.03))
    with page.expect_response("**/api/mask?*"):
      page.click(f"#holes button:text-is('{kind}')")
    page.wait_for_timeout(300)
    hole = changed(fill(page), picture)
    assert 0.02 < hole.mean() < 0.5, kind
    if kind == "Center":
      expected = np.zeros_like(hole)
      expected[50:150, 75:225] = True
      assert (hole != expected).mean() < 0.01


def test_exif_orientation(visit, tmp_path):
  upright = np.full((200, 300, 3), 90, np.uint8)
  upright[:, :150] = 170
  path = tmp_path / "turned.jpg"
  exif = Image.Exif()
  exif[0x0112] = 6  # rotate by 90 degrees clockwise
  turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
  turned.save(path, exif=exif, quality=95)
  page = visit(**SCREEN)
  load(page, path)
  paint(page, (0.75, 0.5), (0.8, 0.5))
  completed = fill(page).astype(int)
  assert completed.shape == upright.shape
  hole = (abs(completed - upright) > 40).any(2)
  assert hole[:, 200:].any()
  assert not hole[:, :200].any()


def test_the_result_can_be_edited_further(visit, picture):
  page = visit(**SCREEN)
  load(page, picture)
  paint(page, (0.2, 0.5), (0.3, 0.5))
  first = fill(page)
  page.click("#go-on")
  page.wait_for_selector("#completed", state="hidden")
  paint(page, (0.7, 0.5), (0.8, 0.5))
  second = fill(page)
  assert changed(second, picture)[:, :150].any()
  np.testing.assert_array_equal(second[:, :150], first[:, :150])


def test_examples_and_unusable_files(visit, tmp_path):
  page = visit(**SCREEN)
  page.click("#examples button[title='Example: lake with a scratch']")
  page.wait_for_selector(shows(1024, 512))
  text = tmp_path / "notes <b>.txt"
  text.write_text("no picture")
  page.set_input_files("#file", text)
  page.wait_for_selector("#status.bad")
  assert "notes <b>.txt: this browser cannot show it" in page.inner_text("#status")
  large = tmp_path / "large.png"
  Image.new("RGB", (1024, 700)).save(large)
  page.set_input_files("#file", large)
  page.wait_for_selector("#status:has-text('0.7 million pixels')")
  assert page.locator(shows(1024, 512)).count() == 1  # the previous picture is kept
