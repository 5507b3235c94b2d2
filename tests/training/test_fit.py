"""Networks of other people: README's example, trained and loaded."""

import pathlib
import re

import jax
import numpy as np
import pytest
import tiny

from ctx_encoder import config, data, training
from ctx_encoder.evaluation import figures
from ctx_encoder.training import history, trained
from ctx_encoder.training.inference import make_complete

README = pathlib.Path(__file__).parents[2] / "README.md"
SMALL = {
  "data.image_size": 16,
  "discriminator.depth": 1,
  "discriminator.width": 1 / 16,
  "batch_size": 4,
  "num_steps": 2,
  "log.every_steps": 1,
}


def example():
  """Returns the Python of README's section."""
  section = README.read_text().split("### Your own network\n")[1]
  return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """Runs README's example, small; returns its names and its folder."""
  folder = tmp_path_factory.mktemp("fit")
  images = tiny.batch(14, side=16)["image"]
  loaded = data.from_arrays(images[:10], images[10:])

  def default():
    """Returns a configuration that keeps its small fields in `update`."""
    settings = config.schema.default()
    update = settings.update
    object.__setattr__(settings, "update", lambda values: update(values | SMALL))
    return settings

  names = {}
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    patch.setattr(config, "default", default)
    patch.setattr(data, "load", lambda settings: loaded)
    patch.setattr(figures, "curves", lambda *args, **kwargs: None)
    exec(compile(example(), "README.md", "exec"), names)
  return names, folder / "runs/hourglass"


def test_the_example_trains(done):
  names, folder = done
  lines = history.read(folder / "metrics.jsonl")
  training_lines = [line for line in lines if "loss/total" in line]
  assert [line["step"] for line in training_lines] == [1, 2]
  assert {"loss/reconstruction", "loss/adversarial"} <= training_lines[0].keys()
  assert (folder / "results.json").exists()
  assert len(example().splitlines()) < 30
  assert names["settings"].masks.kind == "random_block"


@pytest.mark.slow
def test_the_example_is_loaded_for_inference(done):
  names, folder = done
  model = names["model"]
  assert (model.step, model.config.num_steps) == (2, 2)
  assert type(model.generator).__name__ == "Hourglass"
  fresh = names["Hourglass"]().init(jax.random.key(0), np.zeros((1, 16, 16, 3)))
  shapes = jax.tree.map(np.shape, (dict(fresh)["params"], model.variables["params"]))
  assert shapes[0] == shapes[1]
  images = names["images"].train.images[:2]
  hole = np.zeros((2, 16, 16, 1), np.uint8)
  hole[:, 4:12, 4:12] = 1
  completed = make_complete(model.generator, model.variables, model.view)(images, hole)
  expected = model.generator.apply(
    model.variables, np.where(hole > 0, -1, np.float32(images) / 127.5 - 1)
  )
  expected = np.clip(np.round((np.asarray(expected) + 1) * 127.5), 0, 255)
  inside = np.broadcast_to(hole > 0, images.shape)
  assert np.abs(np.asarray(completed)[inside] - expected[inside]).max() <= 1
  np.testing.assert_array_equal(np.asarray(completed)[~inside], images[~inside])
  # Without the module, the configuration's own generator does not match.
  with pytest.raises(ValueError, match="of another model"):
    trained.load(folder)


def test_fit_resumes_and_checks_the_batch_size(done, monkeypatch):
  names, folder = done
  said = []
  monkeypatch.setattr(figures, "curves", lambda *args, **kwargs: None)
  training.fit(names["run"], names["images"], folder, say=said.append)
  assert "Resuming at step 2 of 2" in said[0]
  images = names["images"]
  few = data.from_arrays(images.train.images[:3], images.validation.images)
  with pytest.raises(ValueError, match="batch_size=4"):
    training.fit(names["run"], few, folder)


def test_images_from_arrays():
  images = tiny.batch(5)["image"]
  loaded = data.from_arrays(images[:3], images[3:])
  assert (len(loaded.train), len(loaded.validation)) == (3, 2)
  np.testing.assert_array_equal(loaded.train.gather([2, 0]), images[[2, 0]])
  np.testing.assert_array_equal(loaded.validation.images, images[3:])
  assert len({*loaded.train.ids, *loaded.validation.ids}) == 5
  assert (loaded.summary.source, loaded.summary.used) == ("arrays", 5)
  assert len(data.from_arrays(images).validation) == 0
  for wrong in (images[0], images[..., :1], np.float32(images), images[:, :8]):
    with pytest.raises(ValueError, match=r"must be uint8 \[N, S, S, 3\]"):
      data.from_arrays(wrong)
  with pytest.raises(ValueError, match=r"validation images must be uint8"):
    data.from_arrays(images, images[:, :8, :8])
  with pytest.raises(ValueError, match="no training images"):
    data.from_arrays(images[:0])
