"""One table as text, Markdown, JSON and HTML, read back by other programs' parsers."""

import html.parser
import json
import math

from ctx_encoder.evaluation.table import Table
from ctx_encoder.metrics.headings import METRICS, Metric
from ctx_encoder.metrics.intervals import Interval

ROWS = {
  "this | <b>model</b>": {
    "psnr_hole": Interval(20.456, 19.0, 21.5),
    "l1_hole": Interval(0.0823, 0.08, 0.09),
    "unlisted": 3.0,
  },
  "Telea": {"psnr_hole": 21.0, "note": "slow"},
}
COLUMNS = {
  "psnr_hole": METRICS["psnr_hole"],
  "l1_hole": METRICS["l1_hole"],
  "seam": METRICS["seam"],
  "note": Metric("note"),
}


def test_text_and_markdown_are_aligned():
  table = Table.of(ROWS, COLUMNS, "system")
  cells = [
    ["system", "PSNR hole (dB)", "L1 hole (%)", "note"],
    ["this | <b>model</b>", "20.46 [19.00, 21.50]", "8.23 [8.00, 9.00]", "-"],
    ["Telea", "21.00", "-", "slow"],
  ]
  text = table.text().splitlines()
  assert [line.split("   ")[0].strip() for line in text] == [row[0] for row in cells]
  for line, row in zip(text, cells, strict=True):
    assert [x for x in map(str.strip, line.split("   ")) if x] == row
  assert len({len(line) for line in text}) == 1
  lines = table.markdown().splitlines()
  assert len({len(line) for line in lines}) == 1
  assert set(lines[1]) == {"|", "-"}
  for line, row in zip([lines[0], *lines[2:]], cells, strict=True):
    escaped = line.replace(r"\|", "\0").strip("|").split("|")
    assert [x.strip().replace("\0", "|") for x in escaped] == row


def test_columns_may_be_names_of_metrics():
  rows = {"a": {"l2_hole": 0.5, "psnr_hole": 1.0}}
  text = " ".join(Table.of(rows, ["l2_hole"]).text().split())
  assert text == "L2 hole (%) a 50.00"
  assert list(Table.of(rows).used) == ["psnr_hole", "l2_hole"]


def test_json_has_everything():
  found = json.loads(json.dumps(Table.of(ROWS, COLUMNS).as_json()))
  first = found["this | <b>model</b>"]
  assert first["psnr_hole"] == {"mean": 20.456, "low": 19.0, "high": 21.5}
  assert first["unlisted"] == 3.0
  assert found["Telea"] == {"psnr_hole": 21.0, "note": "slow"}
  grouped = Table({"one": ROWS, "two": ROWS}, COLUMNS).as_json()
  assert grouped == {"one": found, "two": found}


class Parser(html.parser.HTMLParser):
  """Collects rows of cells, each a list of texts; fails on elements left open."""

  def __init__(self, page):
    super().__init__()
    self.open, self.rows = [], []
    self.feed(page)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attributes):
    self.open.append(tag)
    if tag == "tr":
      self.rows.append([])
    if tag in ("th", "td"):
      self.rows[-1].append([])

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, text):
    if {"th", "td"} & set(self.open):
      self.rows[-1][-1].append(text)


def test_html_marks_the_best_and_escapes_names():
  made = Table({"kind <i>": ROWS, "other": {"nan": {"psnr_hole": math.nan}}}, COLUMNS)
  rows = Parser(made.html('a "label" & <more>')).rows
  heads = [["PSNR hole (dB) ↑"], ["L1 hole (%) ↓"], ["note"]]
  assert rows[0][1:] == heads
  assert rows[1] == [["kind <i>"]]
  assert rows[2] == [
    ["this | <b>model</b>"],
    ["20.46", "19.00 to 21.50"],
    ["8.23 ★", "8.00 to 9.00"],
    ["-"],
  ]
  assert rows[3] == [["Telea"], ["21.00 ★"], ["-"], ["slow"]]
  assert rows[5][1] == ["nan"]
  assert "&quot;label&quot; &amp; &lt;more&gt;" in made.html('a "label" & <more>')


def test_control_characters_are_replaced():
  made = Table.of({"a\x00\x1b\x7f\n\tb": {"note": "\x01"}}, COLUMNS).html()
  assert "a\ufffd\ufffd\ufffd\n\tb" in made
  assert "<td>\ufffd</td>" in made


def test_every_metric_explains_itself():
  for name, metric in METRICS.items():
    assert metric.heading
    assert metric.meaning
    assert metric.higher_is_better is name.startswith(("psnr", "ssim"))
