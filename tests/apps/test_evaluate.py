"""`evaluate` and `crosseval`: which images they use, what they print and write."""

import html
import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from command import call, parse, refusal
from pictures import fill_folder
from PIL import Image

from ctx_encoder import data, masks, metrics
from ctx_encoder.apps import runs
from ctx_encoder.apps.commands import evaluate, features
from ctx_encoder.data import split
from ctx_encoder.training import trained
from ctx_encoder.training.inference import make_complete

pytestmark = pytest.mark.usefixtures("mosaics")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder of 20 small pictures."""
  root = tmp_path_factory.mktemp("pictures")
  draw = np.random.default_rng(0)
  for i in range(20):
    pixels = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((20, 20)).save(root / f"{i:02d}.png")
  return root


@pytest.fixture(scope="module")
def workdir(folder, tmp_path_factory):
  """A short run on those pictures."""
  return train(tmp_path_factory.mktemp("runs") / "one", data__path=str(folder))


@pytest.fixture(scope="module")
def of_blocks(folder, tmp_path_factory):
  """A run of another kind of hole, in a folder with an equals sign."""
  root = tmp_path_factory.mktemp("runs") / "kind=random_block"
  return train(root, data__path=str(folder), masks__kind="random_block")


def train(root, **changes):
  return tiny.train(root, data__validation_fraction=0.3, num_steps=2, **changes)


def evaluated(workdir, images=None, **changes):
  """Returns the figures of `evaluate`; `images` are the fields of `runs.Images`."""
  changes = {"baselines": ["mean"], "masks": ["center"]} | changes
  request = runs.Request([str(workdir)], runs.Images(**images or {}), **changes)
  return evaluate.evaluate(request)


@pytest.mark.slow
def test_results_are_the_same_at_any_batch_size(workdir, capsys):
  first = evaluated(workdir, masks=["random_block", "brush"], batch_size=16)
  printed = capsys.readouterr().out
  second = evaluated(workdir, masks=["random_block", "brush"], batch_size=3)
  assert capsys.readouterr().out == printed
  for kind in ("random_block", "brush"):
    one, other = (x["kinds"][kind]["per_image"] for x in (first, second))
    assert one["names"] == other["names"]
    assert one["area"] == other["area"]
  third = evaluated(workdir, masks=["random_block"], seed=1)
  areas = [x["kinds"]["random_block"]["per_image"]["area"] for x in (first, third)]
  assert areas[0] != areas[1]


@pytest.mark.slow
def test_the_figures_are_those_of_the_metrics(workdir, folder):
  model = trained.load(workdir)
  wanted = {"path": str(folder), "everything": True}
  figures = evaluated(workdir, wanted, masks=["random_block"])
  assert figures["images"] == 20
  per_image = figures["kinds"]["random_block"]["per_image"]
  assert per_image["names"] == sorted(path.name for path in folder.iterdir())
  examples, about = runs.open_images(model, runs.Images(**wanted))
  assert about == f"20 images, all of {folder}"
  hole = masks.for_examples(
    masks.make_sampler("random_block", tiny.SIZE), jax.random.key(0), examples.ids
  )
  complete = make_complete(model.generator, model.variables, model.view)
  images = jnp.asarray(examples.images)
  expected = metrics.psnr(complete(images, hole) / 255, images / 255, hole)
  found = per_image["systems"][model.name]["psnr_hole"]
  np.testing.assert_allclose(found, expected, atol=0.02)
  summary = figures["kinds"]["random_block"]["systems"][model.name]["psnr_hole"]
  np.testing.assert_allclose(summary["mean"], np.mean(found), rtol=1e-6)
  assert summary["low"] < summary["mean"] < summary["high"]


# Images


def test_only_the_validation_part_of_a_runs_own_images_is_used(workdir, folder):
  model = trained.load(workdir)
  held_out = None
  for path in (None, str(folder), f"{folder}/../{folder.name}"):
    examples, about = runs.open_images(model, runs.Images(path))
    assert "the validation part of" in about
    assert held_out in (None, examples.names)
    held_out = examples.names
  assert 0 < len(held_out) < 20
  assert len(runs.training_images(model)) == 20 - len(held_out)
  two, about = runs.open_images(model, runs.Images(max_images=2))
  assert list(two.names) == [held_out[i] for i in split.subset(held_out, 2)]
  assert about.startswith(f"2 images, chosen by name from {len(held_out)} images")


@pytest.mark.slow
def test_every_command_takes_the_same_of_many_images(workdir, folder, tmp_path, capsys):
  shared = ["--images", folder, "--max-images", 3, "--masks", "center", "--all"]
  figures, page = tmp_path / "figures.json", tmp_path / "page.html"
  assert call("evaluate", "--workdir", workdir, *shared, "--json", figures) == 0
  (kind,) = json.loads(figures.read_text())["kinds"].values()
  names = kind["per_image"]["names"]
  assert len(names) == 3
  assert call("report", workdir, *shared, "--output", page) == 0
  written = html.unescape(page.read_text("utf-8"))
  assert {path.name for path in folder.iterdir() if path.name in written} == set(names)
  assert capsys.readouterr().out.startswith("3 images, chosen by name from 20 images")
  output = tmp_path / "features.npz"
  source = ["--workdir", workdir, *shared[:4]]
  asked = parse(features, *source, "--output", output)
  _, loaded = features.load(asked, cache="none", check=[])
  assert list(loaded.train.names) == names


@pytest.mark.slow
def test_images_that_have_moved(folder, tmp_path, capsys):
  gone = tmp_path / "gone"
  shutil.copytree(folder, gone)
  moved = train(tmp_path / "moved", data__path=str(gone))
  shutil.move(gone, tmp_path / "elsewhere")
  capsys.readouterr()
  shared = ["--workdir", moved, "--masks", "center"]
  for command in ("evaluate", "crosseval", "report"):
    error = refusal(capsys, command, *shared)
    assert error.startswith(f"ctx-encoder {command}: The images of run ")
    assert str(gone) in error
    assert "--images FOLDER" in error
  assert call("evaluate", *shared, "--images", tmp_path / "elsewhere") == 0
  assert "20 images, all of" in capsys.readouterr().out


def test_a_run_on_a_tfds_set_evaluated_on_a_folder(workdir, folder):
  model = trained.load(workdir)
  model.config.data.path, model.config.data.split = "cycle_gan/monet2photo", "trainB"
  examples, about = runs.open_images(model, runs.Images(str(folder)))
  assert len(examples) == 20
  assert about == f"20 images, all of {folder}"


def test_the_split_of_a_tfds_set(workdir, monkeypatch):
  model = trained.load(workdir)
  options = model.config.data
  options.path, options.split, options.data_dir = "monet", "trainB", "sets"
  read = {}

  def load(settings, *, everything):
    read.update(vars(settings) | {"everything": everything})
    raise ValueError("stop")

  monkeypatch.setattr(data, "load", load)
  for images, expected in [
    (runs.Images(), ("monet", "trainB", "sets", False)),
    (runs.Images("monet"), ("monet", "trainB", "sets", False)),
    (runs.Images("monet", "testB"), ("monet", "testB", "sets", True)),
    (runs.Images("cifar10"), ("cifar10", "train", "sets", True)),
    (runs.Images("cifar10", "test", "mine"), ("cifar10", "test", "mine", True)),
  ]:
    with pytest.raises(ValueError, match="stop"):
      runs.open_images(model, images)
    names = ("path", "split", "data_dir", "everything")
    assert tuple(read[name] for name in names) == expected


@pytest.fixture(scope="module")
def of_embedded():
  """A stand-in for a run on the embedded photographs."""
  config = tiny.config(data__validation_fraction=0.2)

  class Model:
    name = "embedded"

  Model.config = config
  return Model


@pytest.mark.slow
def test_all_embedded_photographs_are_both_their_parts(of_embedded):
  own = data.load(of_embedded.config.data)
  parts = own.train, own.validation
  examples, about = runs.open_images(of_embedded, runs.Images(everything=True))
  assert len(examples) == sum(map(len, parts))
  assert about == f"{len(examples)} images, all of the embedded photographs"
  assert list(examples.names) == sorted(examples.names)
  for part in parts:
    where = np.searchsorted(examples.names, part.names)
    assert [examples.names[i] for i in where] == list(part.names)
    np.testing.assert_array_equal(examples.ids[where], part.ids)
    np.testing.assert_array_equal(examples.images[where], part.images)
  validation, _ = runs.open_images(of_embedded, runs.Images())
  assert validation.names == own.validation.names


def test_a_folder_is_not_taken_for_the_embedded_photographs(
  of_embedded, tmp_path, monkeypatch
):
  fill_folder(tmp_path, 3)
  monkeypatch.chdir(tmp_path)
  examples, about = runs.open_images(of_embedded, runs.Images("."))
  assert len(examples) == 3
  assert about == "3 images, all of ."


# Holes and baselines


def test_masks_of_a_folder(workdir, tmp_path):
  hole = np.zeros((32, 32), np.uint8)
  hole[8:16, 4:12] = 255
  Image.fromarray(hole).save(tmp_path / "hole.png")
  figures = evaluated(workdir, masks=[], mask_dir=str(tmp_path))
  (kind,) = figures["kinds"]
  areas = figures["kinds"][kind]["per_image"]["area"]
  np.testing.assert_allclose(areas, 64 / 1024)


@pytest.mark.slow
def test_a_baseline_whose_library_is_missing(workdir, capsys, monkeypatch):
  monkeypatch.setitem(sys.modules, "cv2", None)
  arguments = ["evaluate", "--workdir", workdir, "--masks", "center"]
  assert call(*arguments) == 0
  out, err = capsys.readouterr()
  assert "| mean colour " in out
  assert "| Telea " not in out
  assert "Left out: The baseline Telea needs cv2" in err
  error = refusal(capsys, *arguments, "--baselines", "mean", "telea")
  assert error.startswith("ctx-encoder evaluate: The baseline Telea needs cv2")


@pytest.mark.slow
def test_a_baseline_and_a_run_of_one_name(workdir, capsys):
  arguments = ["--workdir", f"mean colour={workdir}", "--masks", "center"]
  assert "'mean colour'" in refusal(capsys, "evaluate", *arguments)
  assert call("evaluate", *arguments, "--baselines") == 0


# What is printed and written


def test_the_commands_print_tables_and_write_json(workdir, tmp_path, capsys):
  output = tmp_path / "out.json"
  shared = ["--workdir", workdir, "--masks", "center", "brush", "--json", output]
  assert call("evaluate", *shared, "--baselines", "nearest") == 0
  text = capsys.readouterr().out
  assert "## center" in text
  assert "nearest patch" in text
  assert "dB [" in text
  assert set(json.loads(output.read_text())["kinds"]) == {"center", "brush"}
  assert call("crosseval", *shared, "--metric", "l1_hole") == 0
  text = capsys.readouterr().out
  assert "L1 hole (%)" in text
  rows = [line for line in text.splitlines() if line.startswith("| ")]
  assert [cell.strip() for cell in rows[0].split("|")[2:4]] == ["center", "brush"]
  assert len(rows) == 1 + 3  # heading, this run, mean colour, Telea


@pytest.mark.slow
def test_crosseval_compares_with_the_specialist_of_each_kind(
  workdir, of_blocks, tmp_path, capsys
):
  output = tmp_path / "out.json"
  arguments = ["--workdir", f"first={workdir}", of_blocks, "--baselines", "mean"]
  arguments += ["--masks", "center", "random_block", "brush", "--json", output]
  assert call("crosseval", *arguments, "--metric", "psnr_hole", "ssim_hole") == 0
  text = capsys.readouterr().out
  second = trained.load(of_blocks).name
  matrices = text.split("PSNR difference to the specialist")
  assert "PSNR hole (dB), mean" in matrices[0]
  assert "SSIM hole, mean" in matrices[0]
  first_row, second_row, mean_row = matrices[1].splitlines()[4:7]
  assert first_row.startswith("| first ")
  assert second_row.startswith(f"| {second} ")
  figures = json.loads(output.read_text())
  assert set(figures["models"]) == {"first", second}
  above = figures["above_specialist"]
  assert {name: set(row) for name, row in above.items()} == {
    "first": {"random_block"},
    second: {"center"},
    "mean colour": {"center", "random_block"},
  }
  systems = figures["kinds"]["center"]["systems"]
  means = {name: found["psnr_hole"]["mean"] for name, found in systems.items()}
  expected = means[second] - means["first"]
  np.testing.assert_allclose(above[second]["center"]["mean"], expected, rtol=1e-6)
  assert f"{expected:.2f}" in second_row
  assert mean_row.count("[") == 2


class Measures:
  """Stands in for `perceptual.Perceptual`: its features are the mean colours."""

  printed, layer = "SqueezeNet", "fire9"

  def __init__(self, name, trunk, heads):
    assert (name, trunk, heads) == ("squeeze", "weights.npz", None)

  measure = staticmethod(runs.compare.standard_metrics)
  columns = runs.perceptual.Perceptual.columns

  def features(self, images):
    return images.mean(axis=(1, 2)).astype(np.float32)


@pytest.mark.slow
def test_fid_and_kid_are_written_with_the_name_of_their_network(
  workdir, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(runs.perceptual, "Perceptual", Measures)
  output, many = tmp_path / "out.json", tmp_path / "many"
  fill_folder(many, 50)
  shared = ["--workdir", workdir, "--images", many, "--all", "--masks", "center"]
  shared += ["--trunk", "weights.npz", "--network", "squeeze", "--baselines", "mean"]
  assert call("crosseval", *shared, "--json", output, "--metric", "fid", "kid") == 0
  text = capsys.readouterr().out
  assert "FID, SqueezeNet fire9, mean" in text
  assert "KID, SqueezeNet fire9 (x 1000), mean" in text
  figures = json.loads(output.read_text())
  assert figures["features"] == {"network": "SqueezeNet", "layer": "fire9"}
  systems = figures["kinds"]["center"]["systems"]
  assert {"fid", "kid"} <= systems["mean colour"].keys()
  page = tmp_path / "page.html"
  assert call("report", *shared, "--output", page) == 0
  written = page.read_text("utf-8")
  assert '<th scope="col">FID, SqueezeNet fire9 ↓</th>' in written
  assert "FID and KID: layer fire9 of SqueezeNet" in written


def test_bad_arguments_are_one_line(workdir, capsys):
  for arguments, message in [
    (["--workdir", "nowhere"], "no checkpoint"),
    (["--workdir", "name=nowhere"], "no checkpoint"),
    (["--batch-size", "0"], "at least 1"),
    (["--heads", "lin.pth"], "need --trunk"),
    (["--images", "./nowhere"], "nowhere"),
    (["--mask-dir", "nowhere"], "nowhere"),
    (["--trunk", "nowhere.npz"], "nowhere.npz"),
  ]:
    base = [] if "--workdir" in arguments else ["--workdir", workdir]
    assert message in refusal(capsys, "evaluate", *base, *arguments)
  for metric, message in [("kid", "--trunk"), ("lpips", "--trunk and --heads")]:
    error = refusal(capsys, "crosseval", "--workdir", workdir, "--metric", metric)
    assert f"--metric {metric} needs {message}." in error


def test_the_packages_network_has_a_name():
  (name, model), *others = runs.load_runs(["landscape"]).items()
  assert (name, others) == ("landscape", [])
  assert model.config.data.image_size == 128
  (renamed,) = runs.load_runs(["ours=landscape"])
  assert renamed == "ours"
