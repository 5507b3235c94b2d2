"""A run's generator read back, and compared by the commands."""

import argparse
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from ctx_encoder import masks, metrics
from ctx_encoder.apps import cli
from ctx_encoder.apps.commands import evaluate
from ctx_encoder.evaluation import compare as comparison
from ctx_encoder.training import run as trainer
from ctx_encoder.training import trained
from ctx_encoder.training.inference import make_complete


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
  root = tmp_path_factory.mktemp("runs") / "one"
  config = tiny.config(
    data__path=str(folder), data__validation_fraction=0.3, ema_decay=0.9, num_steps=6
  )
  trainer.train(config, root, say=lambda line: None)
  return root


def test_the_generator_is_the_one_that_was_saved(workdir):
  model = trained.load(workdir)
  assert model.step in (6, trained.load(workdir, step=6).step)
  assert model.config.ema_decay == 0.9
  leaves = jax.tree.leaves(model.variables)
  assert all(isinstance(leaf, jax.Array) for leaf in leaves)
  results = json.loads((workdir / "results.json").read_text())
  again = json.loads(
    json.dumps(evaluated(workdir, masks=["center"]))  # what --json would write
  )
  found = again["kinds"]["center"]["systems"]
  # The trainer's masks have another key, but the centre is the centre.
  expected = results["results"]["mean colour"]["psnr_hole"]
  np.testing.assert_allclose(found["mean colour"]["psnr_hole"]["mean"], expected, 1e-4)
  name = model.name
  expected = results["results"]["this model"]["psnr_hole"]
  np.testing.assert_allclose(found[name]["psnr_hole"]["mean"], expected, atol=0.05)


def evaluated(workdir, **changes):
  parser = argparse.ArgumentParser()
  evaluate.add_arguments(parser)
  args = parser.parse_args(["--workdir", str(workdir), "--baselines", "mean"])
  vars(args).update(changes)
  return evaluate.evaluate(args)


def test_no_run_and_a_damaged_one(workdir, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no checkpoint in .* Train one"):
    trained.load(tmp_path)
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  for file in (copy / "checkpoints").rglob("*"):
    if file.is_file() and file.parent.name != "checkpoints" and file.suffix != ".json":
      file.write_bytes(b"")
  with pytest.raises(ValueError, match="damaged"):
    trained.load(copy)


def test_evaluation_is_the_same_at_any_batch_size(workdir, capsys):
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


def test_the_table_is_what_the_metrics_say(workdir, folder):
  model = trained.load(workdir)
  figures = evaluated(workdir, images=str(folder), all=True, masks=["random_block"])
  assert figures["images"] == 20
  per_image = figures["kinds"]["random_block"]["per_image"]
  names = sorted(path.name for path in folder.iterdir())
  assert per_image["names"] == names
  args = argparse.Namespace(images=str(folder), all=True, max_images=0)
  examples, what = evaluate.images(args, model)
  assert "All 20 images" in what
  hole = masks.for_examples(
    masks.make_sampler("random_block", tiny.SIZE), jax.random.key(0), examples.ids
  )
  complete = make_complete(model.generator, model.variables, model.task)
  images = jnp.asarray(examples.images)
  completed = complete(images, hole) / 255
  expected = metrics.psnr(completed, images / 255, hole)
  found = per_image["systems"][model.name]["psnr_hole"]
  np.testing.assert_allclose(found, expected, atol=0.02)
  summary = figures["kinds"]["random_block"]["systems"][model.name]["psnr_hole"]
  np.testing.assert_allclose(summary["mean"], np.mean(found), rtol=1e-6)
  assert summary["low"] < summary["mean"] < summary["high"]


def test_only_the_validation_part_of_the_runs_own_pictures(workdir, folder):
  args = argparse.Namespace(images=str(folder), all=False, max_images=0)
  model = trained.load(workdir)
  examples, what = evaluate.images(args, model)
  assert "validation part" in what
  held_out, everything = len(examples), 20
  assert 0 < held_out < everything
  assert len(evaluate.training_images(model)) == everything - held_out
  args.max_images = 2
  assert len(evaluate.images(args, model)[0]) == 2


def test_masks_of_a_folder(workdir, tmp_path):
  hole = np.zeros((32, 32), np.uint8)
  hole[8:16, 4:12] = 255
  Image.fromarray(hole).save(tmp_path / "hole.png")
  figures = evaluated(workdir, masks=[], mask_dir=str(tmp_path))
  (kind,) = figures["kinds"]
  areas = figures["kinds"][kind]["per_image"]["area"]
  np.testing.assert_allclose(areas, 64 / 1024)


def test_the_commands_print_tables_and_write_json(workdir, tmp_path, capsys):
  output = tmp_path / "out.json"
  shared = ["--workdir", str(workdir), "--masks", "center", "brush", "--json"]
  assert cli.main(["evaluate", *shared, str(output), "--baselines", "nearest"]) == 0
  text = capsys.readouterr().out
  assert "## center" in text
  assert "nearest patch" in text
  assert "dB [" in text
  assert set(json.loads(output.read_text())["kinds"]) == {"center", "brush"}
  assert cli.main(["crosseval", *shared, str(output), "--metric", "l1_hole"]) == 0
  text = capsys.readouterr().out
  assert "L1 hole (%)" in text
  rows = [line for line in text.splitlines() if line.startswith("| ")]
  assert rows[0].split("|")[2:4] != ["", ""]
  assert len(rows) == 1 + 3  # heading, this run, mean colour, Telea


@pytest.fixture(scope="module")
def of_blocks(folder, tmp_path_factory):
  """A run of another kind of hole, in a folder with an equals sign."""
  root = tmp_path_factory.mktemp("runs") / "kind=random_block"
  config = tiny.config(
    data__path=str(folder),
    data__validation_fraction=0.3,
    num_steps=2,
    masks__kind="random_block",
  )
  trainer.train(config, root, say=lambda line: None)
  return root


def test_crosseval_compares_with_the_model_of_each_kind(
  workdir, of_blocks, tmp_path, capsys
):
  output = tmp_path / "out.json"
  arguments = ["--workdir", f"first={workdir}", str(of_blocks), "--baselines", "mean"]
  arguments += ["--masks", "center", "random_block", "brush", "--json", str(output)]
  arguments += ["--metric", "psnr_hole", "ssim_hole"]
  assert cli.main(["crosseval", *arguments]) == 0
  text = capsys.readouterr().out
  second = trained.load(of_blocks).name
  matrices = text.split("PSNR hole (dB) above")
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


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--workdir", "nowhere"], "no checkpoint"),
    (["--workdir", "name=nowhere"], "no checkpoint"),
    (["--batch-size", "0"], "at least 1"),
    (["--heads", "lin.pth"], "need --trunk"),
    (["--images", "nowhere"], "nowhere"),
    (["--mask-dir", "nowhere"], "nowhere"),
    (["--trunk", "nowhere.npz"], "nowhere.npz"),
  ],
)
def test_bad_arguments_are_one_line(workdir, arguments, message, capsys):
  base = [] if "--workdir" in arguments else ["--workdir", str(workdir)]
  assert cli.main(["evaluate", *base, *arguments]) == 1
  error = capsys.readouterr().err.strip()
  assert message in error
  assert error.startswith("ctx-encoder evaluate: ")
  assert "\n" not in error


def test_buckets_hold_every_image_once():
  area = np.array([0.05, 0.1, 0.15, 0.3, 0.31, 0.9, 1.0])
  values = {"a": {"psnr_hole": np.arange(7.0)}}
  found = comparison.Comparison(tuple("abcdefg"), area, values)
  assert sum(chosen.sum() for chosen in found.buckets().values()) == 7
  assert list(found.buckets()) == [
    "0-10 %",
    "10-20 %",
    "20-30 %",
    "30-50 %",
    "50-100 %",
  ]


def test_a_paired_difference_is_surer_than_either_mean():
  draw = np.random.default_rng(0)
  base = draw.normal(20, 5, 200)
  values = {
    "a": {"psnr_hole": base + 0.5 + draw.normal(0, 0.1, 200)},
    "b": {"psnr_hole": base},
  }
  found = comparison.Comparison(("",) * 200, np.full(200, 0.2), values)
  mean, low, high = found.difference("a", "b", "psnr_hole")
  assert 0.4 < low < mean < high < 0.6
  wide = found.summary()["a"]["psnr_hole"]
  assert wide.high - wide.low > 10 * (high - low)
