"""The report: its HTML, its figures, its pictures, and its layout in a browser."""

import base64
import dataclasses
import html
import html.parser
import io
import itertools
import json
import re
import shutil
import subprocess

import jax
import numpy as np
import pytest
import tiny
from command import call, parse, refusal
from PIL import Image

from ctx_encoder.apps import report, runs
from ctx_encoder.apps.commands import evaluate
from ctx_encoder.apps.commands import report as report_command
from ctx_encoder.apps.report import charts, measure, render
from ctx_encoder.evaluation import compare, figures
from ctx_encoder.metrics.intervals import Interval
from ctx_encoder.models import Settings
from ctx_encoder.training import trained

EVIL = "<script>alert(\"1\")</script> & 'x' $a$"
KINDS = ("center", "random_block")


pytestmark = pytest.mark.usefixtures("mosaics")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder of 24 small pictures, some of whose names are markup."""
  root = tmp_path_factory.mktemp("pictures")
  draw = np.random.default_rng(0)
  for i in range(24):
    pixels = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((16, 16)).save(root / f'<b id="{i}">&amp;.png')
  return root


@pytest.fixture(scope="module")
def workdirs(folder, tmp_path_factory):
  """Two short runs: one with markup for a name, one with noise at the bottleneck."""
  root = tmp_path_factory.mktemp("runs")
  shared = {"data__path": str(folder), "data__validation_fraction": 0.4}
  shared |= {"num_steps": 6, "log__every_steps": 1}
  one = {"name": EVIL, "masks__kind": "random_block"}
  two = {"name": "two", "model__noise_dim": 2, "ema_decay": 0.9}
  return [
    tiny.train(root / "one", **shared, **one),
    tiny.train(root / "two", **shared, **two),
  ]


def make_plan(*given):
  args = parse(report_command, *given, "--masks", *KINDS)
  return runs.make_plan(evaluate.request_of(args, args.runs))


def run(*given):
  """Runs the command; returns its exit code."""
  return call("report", *given, "--masks", *KINDS)


@pytest.fixture(scope="module")
def plan(workdirs):
  return make_plan(*workdirs, "--batch-size", 4)


@pytest.fixture(scope="module")
def made(workdirs):
  """The report on both runs."""
  options = ["--batch-size", 4, "--count", 3, "--masks", *KINDS]
  return report_command.make_report(parse(report_command, *workdirs, *options))


@pytest.fixture(scope="module")
def pages(made):
  """The page on both runs, and that on the first alone."""
  single = dataclasses.replace(made, runs=made.runs[:1])
  return {"several": report.page(made), "single": report.page(single)}


@pytest.fixture(params=["several", "single"])
def text(pages, request):
  return pages[request.param]


class Parser(html.parser.HTMLParser):
  """Collects elements and text; fails where one is not closed in its place."""

  def __init__(self, page):
    super().__init__()
    self.open, self.elements, self.tables, self.texts = [], [], [], []
    self.feed(page)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attributes):
    assert len(dict(attributes)) == len(attributes), tag
    self.elements.append((tag, dict(attributes)))
    if tag not in ("meta", "img", "br"):
      self.open.append(tag)
    if tag == "table":
      self.tables.append([])
    if tag == "tr":
      self.tables[-1].append([])
    if tag in ("th", "td"):
      self.tables[-1][-1].append([])

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, text):
    if self.open and self.open[-1] != "style":
      self.texts.append((self.open[-1], text))
    if "td" in self.open or "th" in self.open:
      self.tables[-1][-1][-1].append(text)

  def all(self, name):
    return [attributes for tag, attributes in self.elements if tag == name]


def pixels(source):
  head, _, body = source.partition(",")
  assert head == "data:image/png;base64"
  with Image.open(io.BytesIO(base64.b64decode(body, validate=True))) as image:
    image.load()
    return np.asarray(image)


# HTML


@pytest.mark.slow
def test_the_page_is_well_formed_and_needs_nothing_else(text):
  parser = Parser(text)
  assert text.startswith("<!DOCTYPE html>\n<html lang=")
  assert parser.all("html") == [{"lang": "en"}]
  images = parser.all("img")
  assert len(images) > 20
  for image in images:
    assert image["alt"].strip()
    assert pixels(image["src"]).shape[:2] == (int(image["height"]), int(image["width"]))
  assert not {"script", "link", "iframe", "object"} & {
    tag for tag, _ in parser.elements
  }
  for _, attributes in parser.elements:
    assert not [name for name in attributes if name.startswith("on")]
  ids = [a["id"] for _, a in parser.elements if "id" in a]
  assert len(set(ids)) == len(ids)
  assert {a["href"] for a in parser.all("a")} == {f"#{name}" for name in ids}
  assert re.findall(r"(?:src|href)=\"(?!data:|#)", text) == []
  assert re.findall(r"url\(|@import", text) == []


@pytest.mark.slow
def test_headings_are_in_order(text):
  levels = [
    int(tag[1]) for tag, _ in Parser(text).elements if re.fullmatch("h[1-6]", tag)
  ]
  assert levels[0] == 1
  assert levels.count(1) == 1
  assert max(np.diff(levels)) == 1


@pytest.mark.slow
def test_names_and_paths_are_no_markup(pages, made):
  for page in pages.values():
    parser = Parser(page)
    assert not parser.all("script")
    assert not [a for a in parser.all("b") if a]
    shown = {text for _, text in parser.texts}
    assert f"Inpainting report: {EVIL}" in shown or f"Run {EVIL}" in shown
    (case, *_) = made.kinds[0].cases
    assert case.name.startswith("<b id=")
    assert case.name in shown
    assert any(image["alt"].startswith(case.name) for image in parser.all("img"))


@pytest.mark.slow
def test_a_page_without_baselines(made):
  names = [run.name for run in made.runs]
  page = report.page(dataclasses.replace(made, baselines=[], shown=names))
  alone = Parser(page)
  assert not any("better than" in text for _, text in alone.texts)
  assert not any("Telea" in alt["alt"] for alt in alone.all("img"))


@pytest.mark.slow
def test_control_characters_and_quotes_are_read_back(made):
  (about, *_) = made.runs
  notes = ['<a href="x">&quot;</a>', '"', "&amp;", "ä\u2028 ", "a\x00\x1b\x7f\tb"]
  changed = dataclasses.replace(made, runs=[dataclasses.replace(about, notes=notes)])
  shown = [text for _, text in Parser(report.page(changed)).texts]
  for note in notes[:-1]:
    assert note in shown
  assert "a\ufffd\ufffd\ufffd\tb" in shown


@pytest.mark.slow
def test_a_name_that_is_not_unicode(made, tmp_path, monkeypatch, workdirs):
  note = b"caf\xe9".decode(errors="surrogateescape")
  broken = dataclasses.replace(made.runs[0], notes=[note])
  changed = dataclasses.replace(made, runs=[broken])
  monkeypatch.setattr(report_command, "make_report", lambda args: changed)
  output = tmp_path / "new" / "page.html"
  assert run(workdirs[0], "--output", output) == 0
  assert r"caf\udce9" in output.read_text("utf-8")


# Figures


@pytest.mark.slow
def test_measurements_are_the_same_in_other_batches(plan, made):
  for kind in made.kinds:
    holes = plan.holes(kind.name)
    found = compare.compare(plan.systems, plan.examples, holes, batch_size=5)
    assert found.names == kind.comparison.names
    for system, values in found.values.items():
      for metric, each in values.items():
        expected = kind.comparison.values[system][metric]
        np.testing.assert_allclose(each, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_tables_hold_the_measurements(made, pages):
  matrix, *of_runs = [
    table
    for table in Parser(pages["several"]).tables
    if any("PSNR hole (dB)" in "".join(cell) for cell in table[0])
  ]
  names = [*(run.name for run in made.runs), *made.baselines]
  assert [row[0][0] for row in matrix[1:]] == names
  for column, kind in enumerate(made.kinds, 1):
    assert matrix[0][column] == [f"{kind.name} ↑"]
    means = {n: kind.comparison.values[n]["psnr_hole"].mean() for n in names}
    for row in matrix[1:]:
      star = " ★" if means[row[0][0]] == max(means.values()) else ""
      assert row[column][0] == f"{means[row[0][0]]:.2f}{star}"
      low, high = map(float, row[column][1].split(" to "))
      assert low <= means[row[0][0]] <= high

  assert len(of_runs) == len(made.runs)
  for run, table in zip(made.runs, of_runs, strict=True):
    names = [run.name, *made.baselines]
    rows = iter(table[1:])
    for kind in made.kinds:
      assert next(rows)[0][0].startswith(f"{kind.name}: {len(kind.comparison.names)} ")
      group = [next(rows) for _ in names]
      assert [row[0][0] for row in group] == names
      # L1 in per cent: less is better.
      means = {n: 100 * kind.comparison.values[n]["l1_hole"].mean() for n in names}
      stars = [n for n in names if means[n] == min(means.values())]
      for name, row in zip(names, group, strict=True):
        assert row[2][0] == f"{means[name]:.2f}{' ★' if name in stars else ''}"
    assert next(rows, None) is None


@pytest.mark.slow
def test_differences_in_words(made, pages):
  for interval, said in [
    ((1.25, 1.0, 1.5), "1.25 dB better than Telea (1.00 to 1.50)"),
    ((-1.25, -1.5, -1.0), "1.25 dB worse than Telea (1.00 to 1.50)"),
    ((0.1, -0.2, 0.4), "no clear difference from Telea (-0.20 to +0.40 dB)"),
  ]:
    assert render.verdict(Interval(*interval), "Telea") == said
  (kind, *_) = made.kinds
  found = kind.comparison.difference(EVIL, "mean colour", "psnr_hole")
  assert html.escape(render.verdict(found, "mean colour")) in pages["single"]


def psnr(completed, original, hole):
  error = (completed.astype(np.float64) - original.astype(np.float64))[hole] / 255
  return -10 * np.log10(np.mean(error**2))


@pytest.mark.slow
def test_pictures_and_their_figures_belong_together(made):
  names = [case.name for case in made.kinds[0].cases]
  assert len(names) == 3
  for kind in made.kinds:
    assert [case.name for case in kind.cases] == names
    ends = [c for both in kind.extremes.values() for cases in both for c in cases]
    for case in (*kind.cases, *ends):
      assert case.completed.keys() == {EVIL, "two", *made.baselines}
      np.testing.assert_array_equal(case.masked[~case.hole], case.original[~case.hole])
      assert (case.masked[case.hole] == report.records.HOLE).all()
      for system, completed in case.completed.items():
        np.testing.assert_array_equal(completed[~case.hole], case.original[~case.hole])
        expected = psnr(completed, case.original, case.hole)
        assert case.psnr[system] == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_the_best_and_the_worst(made):
  for kind in made.kinds:
    for run in made.runs:
      values = np.sort(kind.comparison.values[run.name]["psnr_hole"])
      best, worst = kind.extremes[run.name]
      assert [case.psnr[run.name] for case in worst] == list(values[: len(worst)])
      assert [case.psnr[run.name] for case in best] == list(values[::-1][: len(best)])


@pytest.mark.slow
def test_the_pictures_are_those_of_the_report(made, pages):
  shown = [(i["alt"], pixels(i["src"])) for i in Parser(pages["several"]).all("img")]
  for kind in made.kinds:
    for case in kind.cases:
      for run in made.runs:
        alt = f"{case.name}, completed by {run.name}, {case.psnr[run.name]:.1f} dB"
        same = [
          np.array_equal(p, case.completed[run.name]) for a, p in shown if a == alt
        ]
        assert any(same)


def test_large_pictures_are_reduced():
  picture = np.zeros((8, 8, 3), np.uint8)
  picture[:, 4:] = 200
  small = render.picture(picture, 4)
  np.testing.assert_array_equal(pixels(small.source), picture[::2, ::2])
  assert small[1:] == (4, 4)
  for side in (0, 8, 100):
    shown = render.picture(picture, side)
    np.testing.assert_array_equal(pixels(shown.source), picture)
  hole = np.eye(8, dtype=bool)
  np.testing.assert_array_equal(pixels(render.picture(hole).source), 255 * hole)


def test_a_page_does_not_become_too_large():
  for size, several in itertools.product((64, 128, 256, 1024), (1, 3, 6)):
    side, extremes, count = report_command.layout(size, 4, several, several + 1)
    tiles = 4 * (count * (3 + several) + several * 2 * extremes * 3)
    assert side <= size
    assert 1 <= extremes <= 2
    assert 1 <= count <= 6
    assert tiles * 3 * side**2 < 10e6
    # It is not much too small either.
    assert count == 6 or side * 2 > min(size, 128) or (tiles + 1) * 3 * side**2 > 4e6


# Runs


@pytest.mark.slow
def test_a_hole_of_a_training_picture_has_distance_0(plan):
  found = measure.memorisation(plan, "two", plan.examples.images)
  assert found.keys() == {"the true pictures", "two", *plan.baselines}
  np.testing.assert_allclose(found["the true pictures"].distance, 0, atol=0.1)
  assert (found["two"].distance > 1).all()
  np.testing.assert_array_equal(found["mean colour"].contrast, 0)
  assert len(found["two"].distance) == len(plan.examples)


def test_contrast():
  patches = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3)).astype(np.uint8)
  for patch, found in zip(patches, measure.contrast(patches), strict=True):
    means = [
      patch[y : y + 4, x : x + 4, c].astype(float).mean()
      - np.mean(patch[..., c].astype(float))
      for y in (0, 4)
      for x in (0, 4, 8)
      for c in range(3)
    ]
    assert found == pytest.approx(np.sqrt(np.mean(np.square(means))))


@pytest.mark.slow
def test_the_facts_of_a_run(made, plan, workdirs):
  for run, workdir in zip(made.runs, workdirs, strict=True):
    assert run.notes == []
    assert run.facts["Folder"] == str(workdir)
    step = json.loads((workdir / "results.json").read_text())["step"]
    assert run.facts["Network shown"].startswith(f"step {step}, epoch ")
    assert len(run.curves) == 4
  network = tiny.Mosaic(tiny.SIZE, 0, Settings())
  shape = jax.ShapeDtypeStruct((1, tiny.SIZE, tiny.SIZE, 3), np.float32)
  params = jax.eval_shape(network.init, jax.random.key(0), shape)["params"]
  count = sum(np.prod(x.shape) for x in jax.tree.leaves(params))
  assert made.runs[0].facts["Parameters of the generator"] == f"{count:,}"


@pytest.mark.slow
def test_the_configuration_shows_what_differs_first(made, pages):
  changed, every = [t for t in Parser(pages["single"]).tables if t[0][0] == ["Field"]]
  values = {row[0][0]: row[1] for row in changed[1:]}
  assert values["masks.kind"] == ["random_block"]
  assert values["name"] == [EVIL]
  assert values["data.validation_fraction"] == ["0.4"]
  assert "optimizer.name" not in values
  assert ["optimizer.name"] in [row[0] for row in every]
  assert len(every) > 80


def test_the_best_epoch_is_marked():
  lines = [
    {"step": 1, "epoch": 0.5, "psnr_hole": 9.0, "loss/reconstruction": None},
    {"step": 2, "epoch": 1.0, "eval/psnr_hole": 10.0, "eval/l1_hole": 0.2},
    {"step": 4, "epoch": 2.0, "eval/psnr_hole": 12.0, "eval/l1_hole": 0.1},
    {"step": 6, "epoch": 3.0, "eval/psnr_hole": None},
  ]
  assert figures.best_validation(lines) == (2.0, 12.0)
  assert figures.best_validation(lines[:1])[0] is None
  made = charts.curves(lines)
  assert set(made) == {"PSNR of the hole", "L1 of the hole"}
  unmarked = charts.curves([line | {"eval/psnr_hole": None} for line in lines])
  assert made["L1 of the hole"] != unmarked["L1 of the hole"]
  for chart in made.values():
    with Image.open(io.BytesIO(chart)) as image:
      drawn = np.asarray(image.convert("RGB")).astype(int)
    assert (drawn[:5, :5] == 255).all()  # on white, whatever the page's colours
    assert (np.ptp(drawn, axis=2) > 80).sum() > 100


def test_measurements_that_cannot_be_read(tmp_path):
  path = tmp_path / "metrics.jsonl"
  for content, count, problem in [
    (None, 0, "There is no"),
    (b"", 0, "holds no measurement"),
    (b"\xff\xfe\x00", 0, "holds no measurement"),
    (b"[]\n3\n{}\n", 0, "holds no measurement"),
    (b'{"step": 1, "epoch": 1, "psnr_hole": "x"}\n', 0, "holds no measurement"),
    (b'{"step": 1, "epoch": 1, "psnr_hole": null}\n{"st', 1, ""),
  ]:
    if content is not None:
      path.write_bytes(content)
    lines, said = measure.measurements(tmp_path)
    assert len(lines) == count
    assert problem in said
    assert bool(problem) == (str(path) in said)
    charts.curves(lines)


def test_distances_are_a_chart_with_a_row_for_each_system():
  assert charts.distances({}) == b""
  draw = np.random.default_rng(0)
  found = {"$a_b$": draw.uniform(5, 50, 20), "_c": draw.uniform(5, 50, 20)}
  sizes = []
  for count in (1, 2):
    chart = charts.distances(dict(list(found.items())[:count]))
    with Image.open(io.BytesIO(chart)) as image:
      drawn = np.asarray(image.convert("RGB")).astype(int)
    sizes.append(drawn.shape[0])
    assert (np.ptp(drawn, axis=2) > 80).sum() > 100
  assert sizes[0] < sizes[1]


@pytest.mark.slow
def test_what_is_missing_is_said(plan, workdirs, tmp_path, made):
  copy = tmp_path / "copy"
  shutil.copytree(workdirs[1], copy)
  (copy / "metrics.jsonl").unlink()
  model = trained.load(copy)
  model.config.data.path = str(tmp_path / "moved")
  broken = dataclasses.replace(plan, models=plan.models | {"two": model})
  about = measure.run(broken, "two", report_command.training(model))
  assert len(about.notes) == 3
  assert "no curves" in about.notes[0]
  assert "moved" in about.notes[1]
  assert "data settings differ" in about.notes[2]
  page = report.page(dataclasses.replace(made, runs=[about]))
  shown = [text for _, text in Parser(page).texts]
  assert all(note in shown for note in about.notes)


# The command


@pytest.mark.slow
def test_the_command_writes_a_page_and_pngs(workdirs, tmp_path, capsys):
  output, pngs = tmp_path / "new" / "page.html", tmp_path / "pngs"
  shared = ["--output", output, "--pngs", pngs, "--max-images", 4, "--batch-size", 4]
  assert run("--workdir", workdirs[0], *shared, "--count", 1) == 0
  assert str(output) in capsys.readouterr().out
  parser = Parser(output.read_text("utf-8"))
  assert any("16x16 pixels: 4 images" in text for _, text in parser.texts)
  names = {path.name for path in pngs.iterdir()}
  assert {f"completed_{kind}.png" for kind in KINDS} <= names
  start = "run1_script_alert_1_script_x_a"
  assert {f"{start}_worst_center.png", f"{start}_psnr_of_the_hole.png"} <= names
  for path in pngs.iterdir():
    with Image.open(path) as image:
      assert len(np.unique(np.asarray(image.convert("L")))) > 1


@pytest.mark.slow
def test_the_sentence_on_the_images(workdirs):
  plan = make_plan(workdirs[0])
  sentence = report_command.images(plan)
  count = len(plan.examples)
  assert count < 24
  assert f"16x16 pixels: {count} images, the validation part of" in sentence
  assert "training pictures" not in sentence
  plan = make_plan(workdirs[0], "--all", "--max-images", 9)
  sentence = report_command.images(plan)
  assert "9 images, chosen by name from 24 images, all of" in sentence
  assert "Some of them are training pictures" in sentence
  assert len(plan.examples) == 9


def damaged(workdir, copy):
  shutil.copytree(workdir, copy)
  for file in (copy / "checkpoints").rglob("*"):
    if file.is_file() and file.suffix != ".json":
      file.write_bytes(b"")
  return copy


@pytest.mark.slow
def test_bad_arguments_are_one_line(workdirs, tmp_path, capsys):
  broken, output = damaged(workdirs[0], tmp_path / "broken"), tmp_path / "page.html"
  own = workdirs[0]
  for given, message in [
    ([], "Name the folder of a run"),
    ([tmp_path / "nowhere"], "There is no checkpoint in"),
    ([tmp_path], "There is no checkpoint in"),
    ([broken], "damaged"),
    ([own, own], "one run twice"),
    ([own, "--images", tmp_path / "nowhere"], "nowhere"),
    ([own, "--max-images", "-1"], "--max-images must be at least 0, not -1"),
    ([own, "--batch-size", "0"], "--batch-size must be at least 1, not 0"),
    ([own, "--count", "-1"], "--count must be at least 0, not -1"),
  ]:
    assert message in refusal(capsys, "report", *given, "--output", output)
    assert not output.exists()


@pytest.mark.slow
def test_runs_of_different_image_sizes(workdirs, monkeypatch, capsys):
  load = trained.load

  def larger(workdir):
    model = load(workdir)
    if str(workdir) == str(workdirs[1]):
      model.config.data.image_size = 32
    return model

  monkeypatch.setattr(trained, "load", larger)
  assert "different image sizes" in refusal(capsys, "report", *workdirs)


@pytest.mark.slow
def test_a_run_with_the_name_of_a_baseline(workdirs, monkeypatch, capsys):
  load = trained.load

  def renamed(workdir):
    model = load(workdir)
    model.config.name = "mean colour"
    return model

  monkeypatch.setattr(trained, "load", renamed)
  assert "'mean colour'" in refusal(capsys, "report", workdirs[0])
  assert make_plan(workdirs[0], "--baselines").baselines == []


# In a browser

_PROBE = """<!DOCTYPE html><title>probe</title>
<body style="margin: 0"><script>
const found = {};
for (const width of [360, 400, 1400]) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 800px`;
  frame.srcdoc = PAGE;
  frame.onload = () => {
    const inside = frame.contentDocument, root = inside.documentElement;
    for (const details of inside.querySelectorAll("details")) details.open = true;
    const images = [...inside.images];
    found[width] = {
      width: root.clientWidth,
      scroll: Math.max(root.scrollWidth, inside.body.scrollWidth),
      images: images.length,
      broken: images.filter((i) => !i.complete || !i.naturalWidth).length,
      narrowest: Math.min(...images.map((i) => i.clientWidth)),
    };
    if (Object.keys(found).length == 3) document.title = JSON.stringify(found);
  };
  document.body.append(frame);
}
</script>"""


@pytest.mark.slow
@pytest.mark.parametrize("which", ["several", "single"])
def test_the_layout_in_a_browser(pages, which, tmp_path):
  names = ("chromium", "chromium-browser", "google-chrome", "chrome")
  browser = next(filter(None, map(shutil.which, names)), None)
  if browser is None:
    pytest.skip("there is no Chromium to lay the page out with")
  probe = tmp_path / "probe.html"
  # A closing tag inside a string would end the script.
  page = json.dumps(pages[which]).replace("</", "<\\/")
  probe.write_text(_PROBE.replace("PAGE", page), "utf-8")
  options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1500,900"]
  options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000"]
  result = subprocess.run(
    [browser, *options, "--dump-dom", probe.as_uri()],
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  title = re.search("<title>(.*?)</title>", result.stdout, re.DOTALL)
  assert title, result.stderr[-2000:]
  found = json.loads(html.unescape(title[1]))
  for width, measured in found.items():
    assert measured["scroll"] <= measured["width"], width
    assert measured["broken"] == 0
    assert measured["images"] == len(Parser(pages[which]).all("img"))
    assert measured["narrowest"] >= 60
