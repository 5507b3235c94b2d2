"""Complete runs of tiny networks: interrupted and resumed, finished, refused."""

import contextlib
import copy
import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from ctx_encoder import data
from ctx_encoder.evaluation import compare, figures
from ctx_encoder.training import feed, history, loop, process, trainer
from ctx_encoder.training.checkpoint import Checkpoints

STEPS = 8
EPOCH = 3  # 15 pictures, 4 a step


pytestmark = pytest.mark.usefixtures("mosaics")


@pytest.fixture(scope="module")
def make_config(photographs):
  """Returns a function from changes to a configuration with every random part."""

  def make(**changes):
    options = {
      "name": "tiny",
      "num_steps": STEPS,
      "ema_decay": 0.9,
      "data__path": str(photographs),
      "data__validation_fraction": 0.25,
      "masks__kind": "random_block",
      "augment__flip_horizontal": 0.5,
      "model__noise_dim": 2,
      "eval__grid_images": 3,
      "checkpoint__every_steps": 2,
      "log__every_steps": 1,
    }
    return tiny.config(**(options | changes))

  return make


def run(config, workdir, *, draw=False):
  """Trains; returns the outcome and the lines for the user.

  Without `draw` there are no curves: they would take half of the time.
  """
  said = []
  with pytest.MonkeyPatch.context() as patch:
    if not draw:
      patch.setattr(figures, "curves", lambda *args, **kwargs: None)
    outcome = trainer.train(config, workdir, say=said.append)
  return outcome, "\n".join(said)


def saved_arrays(config, workdir, step=None):
  """Returns the arrays of a checkpoint, by default the last."""
  abstract = tiny.abstract_state(config)
  state, _ = Checkpoints(workdir / "checkpoints").restore(abstract, step)
  return {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
  }


def lines_without_time(workdir):
  lines = history.read(workdir / "metrics.jsonl")
  return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def at_step(monkeypatch, number, change):
  """Replaces the result of one dispatch by `change(state, metrics)`."""
  original = feed.dispatches

  def dispatches(*args, **kwargs):
    with contextlib.closing(original(*args, **kwargs)) as steps:
      for end, dispatch in steps:
        if end == number:
          yield end, lambda state, make=dispatch: change(*make(state))
        else:
          yield end, dispatch

  monkeypatch.setattr(feed, "dispatches", dispatches)


def terminate(state, metrics):
  os.kill(os.getpid(), signal.SIGTERM)
  return state, metrics


def no_run(*args, **kwargs):
  raise AssertionError("A run is started.")


def no_steps(step):
  raise AssertionError("A step is about to be made.")


@pytest.fixture(scope="module")
def complete_runs(make_config, tmp_path_factory):
  """Returns a function from a placement to an uninterrupted run.

  It returns the configuration, the folder, the outcome, and the lines for the user.
  """

  @functools.cache
  def complete_run(placement):
    config = make_config(data__placement=placement)
    workdir = tmp_path_factory.mktemp(placement)
    return config, workdir, *run(config, workdir, draw=True)

  return complete_run


@pytest.fixture(params=["device", pytest.param("host", marks=pytest.mark.slow)])
def complete(request, complete_runs):
  return complete_runs(request.param)


@pytest.fixture
def on_device(complete_runs):
  return complete_runs("device")


@pytest.fixture
def from_host(complete_runs):
  return complete_runs("host")


def test_a_run_interrupted_twice_ends_with_the_same_bits(
  complete, tmp_path, monkeypatch
):
  config, complete_workdir, complete_outcome, _ = complete
  with monkeypatch.context() as patch:
    at_step(patch, 4, terminate)
    outcome, said = run(config, tmp_path)
  assert (outcome.step, outcome.reason, outcome.results) == (4, "interrupted", {})
  assert f"Stopped at step 4 of 8 and saved in {tmp_path}." in said
  assert "The same command resumes it." in said
  assert Checkpoints(tmp_path / "checkpoints").latest() == 4

  validate = loop.Loop.validate

  def power_cut(loop, state, step, seconds):
    if step == STEPS:
      raise RuntimeError("power cut")
    return validate(loop, state, step, seconds)

  with monkeypatch.context() as patch:
    patch.setattr(loop.Loop, "validate", power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
      run(config, tmp_path)
  assert Checkpoints(tmp_path / "checkpoints").latest() == 6
  # Steps 7 and 8 were logged; they are repeated.
  assert lines_without_time(tmp_path)[-1]["step"] == STEPS

  outcome, said = run(config, tmp_path)
  assert "Resuming at step 6 of 8" in said
  assert outcome == complete_outcome
  assert_same_run(config, tmp_path, complete_workdir)


def assert_same_run(config, workdir, other):
  """Checks that all arrays of the last checkpoints are equal, and all measurements."""
  found, expected = saved_arrays(config, workdir), saved_arrays(config, other)
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)
  assert lines_without_time(workdir) == lines_without_time(other)


@pytest.mark.slow
def test_the_files_of_a_run(complete):
  config, workdir, outcome, said = complete
  assert (outcome.step, outcome.total_steps) == (STEPS, STEPS)
  assert outcome.reason == "finished"

  lines = history.read(workdir / "metrics.jsonl")
  training = [line for line in lines if "loss/total" in line]
  validation = [line for line in lines if "eval/psnr_hole" in line]
  assert len(training) + len(validation) == len(lines)
  assert [line["step"] for line in training] == list(range(1, STEPS + 1))
  assert [line["step"] for line in validation] == [3, 6, 8]
  assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
  seconds = [line["seconds"] for line in lines]
  assert seconds == sorted(seconds)
  for line in lines:
    assert line["epoch"] == pytest.approx(line["step"] / EPOCH)
    assert line["images"] == line["step"] * config.batch_size
  assert training[0].keys() >= {"loss/reconstruction", "loss/adversarial", "psnr_hole"}
  assert validation[0].keys() >= {"eval/l1_hole", "eval/psnr_patch", "eval/l2_image"}

  pictures = [f"step_000000{step}.png" for step in (3, 6, 8)]
  assert sorted(path.name for path in (workdir / "images").iterdir()) == pictures
  for path in (workdir / "curves.png", *(workdir / "images").iterdir()):
    with Image.open(path) as image:
      pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 3 * tiny.SIZE
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, path

  written = json.loads((workdir / "results.json").read_text())
  assert written["results"] == outcome.results
  assert written["images"] == 5
  scores = {line["step"]: line["eval/psnr_hole"] for line in validation}
  assert scores[written["step"]] == max(scores.values())
  model = outcome.results[compare.MODEL]
  assert model["psnr_hole"] == pytest.approx(scores[written["step"]], abs=1e-4)
  assert {"mean colour", compare.MODEL} <= outcome.results.keys()
  assert "15 training and 5 validation images" in said
  assert f"{model['psnr_hole']:.2f}" in said


def test_host_and_device_placement_give_the_same(on_device, from_host):
  assert_alike(on_device[1], from_host[1])


@pytest.mark.slow
def test_several_steps_a_dispatch_are_logged_one_by_one(
  make_config, on_device, tmp_path
):
  config = make_config(
    steps_per_dispatch=2, data__placement="device", log__every_steps=2
  )
  run(config, tmp_path)
  steps = [line["step"] for line in lines_without_time(tmp_path)]
  assert steps == [1, 2, 3, 4, 6, 6, 8, 8]
  assert_alike(tmp_path, on_device[1])


def assert_alike(workdir, other):
  """Checks that what both measured is equal, but for rounding."""
  lines = {}
  for line in lines_without_time(other):
    lines[line["step"], len(line)] = line
  for line in lines_without_time(workdir):
    assert line == pytest.approx(lines[line["step"], len(line)], rel=1e-3)


def test_a_finished_run_shows_its_results_and_trains_nothing(on_device, monkeypatch):
  config, workdir, outcome, _ = on_device
  before = (workdir / "metrics.jsonl").read_bytes()
  checkpoints = Checkpoints(workdir / "checkpoints").steps()
  monkeypatch.setattr(feed, "make_dispatch", no_steps)
  again, said = run(config, workdir)
  assert again == outcome
  assert loop.table_of(outcome.results) in said
  assert (workdir / "metrics.jsonl").read_bytes() == before
  assert Checkpoints(workdir / "checkpoints").steps() == checkpoints


def test_a_finished_run_can_be_continued_with_other_fields_that_may_change(
  from_host, tmp_path
):
  config, workdir, *_ = from_host
  shutil.copytree(workdir, tmp_path / "copy")
  longer = copy.deepcopy(config)
  longer.num_steps, longer.name = STEPS + 1, "longer"
  longer.data.placement, longer.eval.grid_images = "device", 1
  outcome, said = run(longer, tmp_path / "copy")
  assert (outcome.step, outcome.reason) == (STEPS + 1, "finished")
  assert f"Resuming at step {STEPS} of {STEPS + 1}" in said
  assert lines_without_time(tmp_path / "copy")[-1]["step"] == STEPS + 1


def test_the_last_step_is_evaluated_where_the_best_checkpoint_is_damaged(
  on_device, tmp_path, monkeypatch
):
  config, workdir, *_ = on_device
  shutil.copytree(workdir, tmp_path / "copy")
  folder = tmp_path / "copy/checkpoints"
  earlier = Checkpoints(folder).steps()[0]
  monkeypatch.setattr(Checkpoints, "best", lambda self: earlier)
  for file in (folder / str(earlier) / "state").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  outcome, said = run(config, tmp_path / "copy")
  assert outcome.reason == "finished"
  assert outcome.results
  assert f"{earlier} is damaged" in said
  assert "The last step is evaluated instead." in said


@pytest.mark.slow
def test_a_resumed_run_keeps_its_mean_colour(make_config, tmp_path, monkeypatch):
  config = make_config(masks__fill="mean", num_steps=2)
  outcome, _ = run(config, tmp_path)
  monkeypatch.delattr(data.Examples, "mean_color")
  again, _ = run(config, tmp_path)
  assert again == outcome
  extra = Checkpoints(tmp_path / "checkpoints").read_extra()
  red, green, blue = extra["mean_color"]
  assert (red, green, blue) != (127.5, 127.5, 127.5)


def test_another_configuration_is_refused_before_data_is_read(on_device, monkeypatch):
  config, workdir, *_ = on_device
  monkeypatch.delattr(feed, "load_images")
  for name, value, before in (
    ("seed", 1, 0),
    ("model.noise_dim", 0, 2),
    ("model.dropout", 0.1, None),
  ):
    other = copy.deepcopy(config)
    other.update({name: value})
    with pytest.raises(ValueError, match="another configuration") as error:
      run(other, workdir)
    assert f"{name}: {before} in the checkpoint, {value} now" in str(error.value)
    assert str(error.value).count("in the checkpoint,") == 1


@pytest.mark.slow
def test_a_run_without_progress_stops_early(make_config, tmp_path, monkeypatch):
  scores, validate = iter([10.0, 12.0, 11.0, 11.5, 11.9, 11.8]), compare.validate

  def scripted(*args, baselines=None, **kwargs):
    if baselines:  # at the end
      return validate(*args, baselines=baselines, **kwargs)
    means = {"psnr_hole": next(scores), "l1_hole": 0.1, "l2_hole": 0.02}
    return {compare.MODEL: means}

  monkeypatch.setattr(compare, "validate", scripted)
  options = {"num_steps": 30, "data__placement": "device", "log__every_steps": 5}
  config = make_config(early_stopping__patience=2, **options)
  outcome, said = run(config, tmp_path)
  assert (outcome.step, outcome.reason) == (12, "stopped early")
  assert outcome.total_steps == 30
  assert "the best step being 6" in said
  assert json.loads((tmp_path / "results.json").read_text())["step"] == 6
  best_and_latest = Checkpoints(tmp_path / "checkpoints")
  assert best_and_latest.best() == 6
  assert best_and_latest.steps() == [6, 10, 12]
  trained = [
    line["step"] for line in lines_without_time(tmp_path) if "loss/total" in line
  ]
  assert trained == [1, 5, 10]

  with monkeypatch.context() as patch:
    patch.setattr(feed, "make_dispatch", no_steps)
    again, _ = run(config, tmp_path)
  assert again == outcome
  patient = make_config(early_stopping__patience=3, **options)
  outcome, _ = run(patient, tmp_path)
  assert (outcome.step, outcome.reason) == (15, "stopped early")


# Infinite and NaN values


def all_finite(arrays):
  return all(np.isfinite(array).all() for array in arrays.values())


def poison(state, metrics):
  """Makes the generator's parameters NaN; the metrics stay finite."""
  params = jax.tree.map(lambda x: x * jnp.nan, state.generator.params)
  return state.replace(generator=state.generator.replace(params=params)), metrics


def test_an_infinite_loss_ends_the_run(make_config, tmp_path, monkeypatch):
  def overflow(state, metrics):
    return state, metrics | {"loss/adversarial": metrics["loss/adversarial"] + jnp.inf}

  config = make_config(data__placement="device")
  at_step(monkeypatch, 5, overflow)
  with pytest.raises(trainer.NonFiniteError) as error:
    run(config, tmp_path)
  message = str(error.value)
  assert message.startswith("At step 5 loss/adversarial is inf.")
  assert f"step 4 in {tmp_path}, is good." in message
  assert "optimizer.learning_rate" in message
  assert Checkpoints(tmp_path / "checkpoints").latest() == 4
  assert all_finite(saved_arrays(config, tmp_path))
  assert lines_without_time(tmp_path)[-1]["step"] == 4


@pytest.mark.slow
def test_nan_parameters_end_the_run_at_the_next_loss(
  make_config, tmp_path, monkeypatch
):
  config = make_config(data__placement="device", checkpoint__every_steps=0)
  at_step(monkeypatch, 4, poison)
  with pytest.raises(trainer.NonFiniteError) as error:
    run(config, tmp_path)
  assert "At step 5 " in str(error.value)
  assert "loss/reconstruction is nan" in str(error.value)
  assert f"step 3 in {tmp_path}, is good." in str(error.value)


@pytest.mark.parametrize(
  ("step", "last_good"),
  [
    (4, 3),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in [(6, 4), (2, None)]),
  ],
)
def test_nan_parameters_are_never_saved(
  make_config, tmp_path, monkeypatch, step, last_good
):
  config = make_config(data__placement="device")
  at_step(monkeypatch, step, poison)
  with pytest.raises(
    trainer.NonFiniteError, match=f"At step {step} generator.params is nan"
  ) as error:
    run(config, tmp_path)
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  assert checkpoints.latest() == last_good
  if last_good is None:
    assert "There is no checkpoint yet." in str(error.value)
  else:
    assert f"step {last_good} in {tmp_path}, is good." in str(error.value)
    assert all_finite(saved_arrays(config, tmp_path))


# Other ways through the loop


@pytest.mark.slow
def test_images_decoded_again_every_epoch(make_config, tmp_path, photographs):
  (streamed, cached) = (tmp_path / "streamed", tmp_path / "cached")
  options = {"num_steps": 4, "data__placement": "host"}
  outcome, _ = run(make_config(data__cache="none", **options), streamed)
  assert outcome.reason == "finished"
  run(make_config(data__cache="memory", **options), cached)
  assert lines_without_time(streamed) == lines_without_time(cached)


@pytest.mark.slow
def test_without_validation_images(make_config, tmp_path):
  config = make_config(data__validation_fraction=0.0, num_steps=2)
  outcome, said = run(config, tmp_path)
  assert (outcome.reason, outcome.results) == ("finished", {})
  assert "there are no validation images" in said
  assert Checkpoints(tmp_path / "checkpoints").latest() == 2
  assert not (tmp_path / "images").exists()


def test_the_second_ctrl_c_ends_at_once(make_config, tmp_path, monkeypatch):
  def twice(state, metrics):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    return state, metrics

  monkeypatch.setattr(process, "_GRACE", 60)  # this process is not to be ended
  before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
  at_step(monkeypatch, 4, twice)
  with pytest.raises(KeyboardInterrupt):
    run(make_config(data__placement="device"), tmp_path)
  assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
  assert Checkpoints(tmp_path / "checkpoints").latest() == 3


# Invalid runs


INVALID = (
  ({"data__path": "{folder}/nowhere/"}, FileNotFoundError, ["nowhere", "data.path"]),
  ({"data__path": "{folder}/empty"}, ValueError, ["No images", "empty", "data.path"]),
  ({"batch_size": 16}, ValueError, ["batch_size=16", "15", "set batch_size to 15"]),
  (
    {
      "masks__kind": "random_region",
      "masks__region": "shapes",
      "masks__path": "{folder}/empty",
    },
    ValueError,
    ["No mask images", "empty", "masks.path"],
  ),
  (
    {"data__placement": "device", "data__cache": "none"},
    ValueError,
    ["data.placement=device", "data.cache=none"],
  ),
  ({"data__image_size": 24}, ValueError, ["data.image_size", "power of two"]),
  ({"masks__fill": "mauve"}, ValueError, ["masks.fill", "mauve"]),
)


def test_invalid_runs_are_refused_before_anything_is_built(
  make_config, tmp_path, monkeypatch
):
  (tmp_path / "empty").mkdir()
  monkeypatch.setattr(trainer, "_train", no_run)
  for changes, error, words in INVALID:
    changes = {
      name: value.format(folder=tmp_path) if isinstance(value, str) else value
      for name, value in changes.items()
    }
    with pytest.raises(error) as raised:
      run(make_config(**changes), tmp_path / "run")
    message = str(raised.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert not (tmp_path / "run").exists()


# Runs in separate processes

_SCRIPT = """
import json, sys
import pytest, tiny
from ctx_encoder.training import trainer
tiny.use_mosaics(pytest.MonkeyPatch())
config = tiny.config(**json.loads(sys.argv[1]))
print(trainer.train(config, sys.argv[2]).reason)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_was_ended_is_resumed(
  number, photographs, tmp_path, compilation_cache
):
  options = {
    "data__path": str(photographs),
    "num_steps": 60,
    "ema_decay": 0.9,
    "masks__kind": "random_block",
    "checkpoint__every_steps": 7,
    "log__every_steps": 1,
    "eval__every_epochs": 4,
  }
  tests = pathlib.Path(__file__).parents[1]
  environment = os.environ | {
    "JAX_COMPILATION_CACHE_DIR": str(compilation_cache),
    "PYTHONPATH": os.pathsep.join([str(tests / "support"), str(tests.parent)]),
  }

  def start(name):
    return subprocess.Popen(
      [sys.executable, "-c", _SCRIPT, json.dumps(options), str(tmp_path / name)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def end(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out

  ended = start("ended")
  deadline = time.time() + 300
  while len(history.read(tmp_path / "ended" / "metrics.jsonl")) < 20:
    assert ended.poll() is None, ended.communicate()[1]
    assert time.time() < deadline
    time.sleep(0.02)
  ended.send_signal(number)
  if number == signal.SIGTERM:
    assert end(ended).endswith("interrupted\n")
  else:
    ended.communicate(timeout=60)
  cut_at = Checkpoints(tmp_path / "ended" / "checkpoints").latest()
  assert cut_at is not None
  assert cut_at < 60
  out = end(start("ended"))
  assert f"Resuming at step {cut_at} of 60" in out
  assert out.endswith("finished\n")
  assert end(start("complete")).endswith("finished\n")
  assert_same_run(tiny.config(**options), tmp_path / "ended", tmp_path / "complete")
