"""The network of the package: intact, documented, and its fill has texture."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from ctx_encoder import xla
from ctx_encoder.apps import cli
from ctx_encoder.data import landscapes
from ctx_encoder.evaluation import baselines
from ctx_encoder.inpaint import Inpainter, shipped
from ctx_encoder.models.weights import package


def test_the_weights_are_the_published_ones(monkeypatch):
  params = shipped.variables()["params"]
  assert sum(x.size for x in _leaves(params)) == shipped.card()["parameters"]
  for field in ("data", "licence", "recipe", "figures", "limits", "not_for"):
    assert shipped.card()[field], field
  file = package.folder() / "landscape.safetensors"
  content = file.read_bytes()
  assert hashlib.sha256(content).hexdigest() == shipped.card()["sha256"]
  assert len(content) <= 10e6
  shipped.variables.cache_clear()
  monkeypatch.setattr(package, "card", lambda: {"sha256": "0"})
  with pytest.raises(ValueError, match=r"landscape\.safetensors is damaged"):
    shipped.variables()
  shipped.variables.cache_clear()


def _leaves(tree):
  for value in tree.values():
    yield from _leaves(value) if isinstance(value, dict) else [value]


def square(name):
  """Returns the centre of a photograph that the network was not trained on."""
  assert name in landscapes.split()[1]
  picture = landscapes.read(name)
  left = picture.shape[1] // 2 - 128
  return picture[128:384, left : left + 256]


MASK = np.zeros((256, 256), bool)
MASK[80:176, 96:192] = True


def roughness(image):
  """Returns the mean absolute difference of neighbours inside the hole."""
  return np.abs(np.diff(image.astype(float), axis=1))[MASK[:, 1:]].mean()


def test_known_pixels_stay_and_the_fill_is_as_rough_as_the_original():
  names = [name for name in landscapes.split()[1] if not name.startswith("s")][::3]
  pictures = [square(name) for name in names]
  completed = Inpainter.shipped()(pictures, [MASK] * len(pictures))
  telea = baselines.named(["telea"])[0].complete
  apart = {"shipped": [], "telea": []}
  for picture, filled in zip(pictures, completed, strict=True):
    np.testing.assert_array_equal(filled[~MASK], picture[~MASK])
    for system, image in (("shipped", filled), ("telea", telea(picture, MASK))):
      apart[system].append(abs(np.log(roughness(image) / roughness(picture))))
  assert np.mean(apart["shipped"]) < 0.8 * np.mean(apart["telea"]), apart


def test_the_command_needs_no_run(tmp_path, monkeypatch, capsys):
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folders = []  # instead of changing the cache of the tests
  monkeypatch.setattr(xla, "cache_in", folders.append)
  picture, mask = square(landscapes.split()[1][0]), MASK
  for name, image in (("photo.png", picture), ("mask.png", np.uint8(255 * mask))):
    Image.fromarray(image).save(tmp_path / name)
  words = ["inpaint", "--image", "photo.png", "--mask", "mask.png", "--output", "o.png"]
  words = [str(tmp_path / word) if word.endswith(".png") else word for word in words]
  assert cli.main(words) == 0, capsys.readouterr().err
  completed = np.asarray(Image.open(tmp_path / "o.png"))
  np.testing.assert_array_equal(completed[~mask], picture[~mask])
  assert (completed[mask] != picture[mask]).any()
  assert folders == [tmp_path / "ctx_encoder"]
  assert cli.main([*words, "--step", "3"]) == 1
  assert "needs --workdir" in capsys.readouterr().err


def test_the_card_is_json_that_people_can_read():
  text = json.dumps(shipped.card())
  assert "CC BY-SA" in text
  assert "public domain" in text
