"""Features of images: layers, pooling, and the commands `features` and `probe`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from command import call
from pictures import encode, load, noise

from ctx_encoder import models, pixels
from ctx_encoder.apps.probe import features
from ctx_encoder.training import trained
from ctx_encoder.training.task import View

pytestmark = pytest.mark.usefixtures("small_networks")


def view(size=tiny.SIZE, **options):
  defaults = {"fill": (0.0, 0.0, 0.0), "normalization": "symmetric"}
  defaults |= {"mask_channel": False, "predict": "image"}
  return View(size, **(defaults | options))


@pytest.fixture(scope="module")
def network():
  """A generator that sees the mask, and has noise, with its variables."""
  generator = tiny.generator(noise_dim=2)
  inputs = jnp.zeros((1, tiny.SIZE, tiny.SIZE, 4))
  keys = jax.random.key(1)[None]
  return generator, generator.init(jax.random.key(0), inputs, keys=keys)


@pytest.mark.parametrize(
  "options",
  [
    {"fill": (1.0, 0.5, 0.0)},
    pytest.param({"fill": None}, marks=pytest.mark.slow),
    pytest.param({"normalization": "unit"}, marks=pytest.mark.slow),
    {"normalization": "minmax"},
  ],
)
def test_features_are_those_of_the_network_without_a_hole(network, options):
  generator, variables = network
  batch = tiny.batch(4)["image"]
  asked = view(mask_channel=True, **options)
  images = batch.astype(np.float32) / 255
  normalization = options.get("normalization", "symmetric")
  if normalization == "symmetric":
    images = 2 * images - 1
  elif normalization == "minmax":
    low = images.min(axis=(1, 2, 3), keepdims=True)
    high = images.max(axis=(1, 2, 3), keepdims=True)
    images = 2 * (images - low) / (high - low) - 1
  inputs = np.concatenate([images, np.zeros_like(images[..., :1])], axis=3)
  keys = jnp.broadcast_to(jax.random.key(0), 4)
  expected = {
    "stage1": generator.encoder.apply(
      {name: part["encoder"] for name, part in variables.items()}, inputs
    ),
    "bottleneck": generator.apply(variables, inputs, keys=keys, method="encode"),
  }
  for layer, maps in expected.items():
    extract = features.make_extract(generator, asked, layer, "none")
    np.testing.assert_allclose(
      extract(variables, batch), maps.reshape(4, -1), atol=2e-5
    )


def test_larger_pictures_are_cropped_to_their_centre(network):
  generator, variables = network
  extract = features.make_extract(generator, view(mask_channel=True))
  large = tiny.batch(2, side=20)["image"]
  np.testing.assert_array_equal(
    extract(variables, large), extract(variables, large[:, 2:18, 2:18])
  )


@pytest.mark.parametrize(
  ("generator", "expected"),
  [
    (models.photos(128), {"stage1": (14, 14, 96), "stage5": (2, 2, 256)}),
    (models.photos(128), {"bottleneck": (6, 6, 256)}),
    (models.monet(128), {"stage1": (64, 64, 64), "bottleneck": (1, 1, 4000)}),
    (
      models.photos(128).clone(encoder=models.pretrained.PretrainedEncoder("alexnet")),
      {"relu1": (31, 31, 64), "pool5": (3, 3, 256)},
    ),
  ],
)
def test_layers_are_those_of_the_tables(generator, expected):
  found = features.shapes(generator, view(128))
  assert expected.items() <= found.items()
  assert list(found)[-1] == "bottleneck"


def test_pooling(monkeypatch):
  monkeypatch.setattr(features, "MOST_FEATURES", 50)
  draw = np.random.default_rng(0)
  maps = draw.normal(size=(2, 7, 5, 3)).astype(np.float32)
  pooled = {pool: features._pool(jnp.asarray(maps), pool) for pool in features.POOLS}
  np.testing.assert_array_equal(pooled["none"], maps)
  np.testing.assert_allclose(pooled["mean"], maps.mean(axis=(1, 2)), rtol=1e-5)
  np.testing.assert_array_equal(pooled["max"], maps.max(axis=(1, 2)))
  assert pooled["grid"].shape == (2, 4, 4, 3)
  rows, columns = [(0, 2), (1, 4), (3, 6), (5, 7)], [(0, 2), (1, 3), (2, 4), (3, 5)]
  for i, (top, bottom) in enumerate(rows):
    for j, (left, right) in enumerate(columns):
      expected = maps[:, top:bottom, left:right].mean(axis=(1, 2))
      np.testing.assert_allclose(pooled["grid"][:, i, j], expected, atol=1e-6)
  small = maps[:, :4, :4]
  np.testing.assert_array_equal(features._pool(jnp.asarray(small), "grid"), small)


def test_mean_colors():
  images = tiny.batch(3)["image"]
  found = features.make_pixels(view(), 2)(images)
  quarters = images.reshape(3, 2, 8, 2, 8, 3).mean(axis=(2, 4)) / 255
  np.testing.assert_allclose(found, quarters.reshape(3, 12), rtol=1e-5)


@pytest.mark.slow
def test_an_untrained_networks_statistics_are_those_of_the_pictures():
  generator, asked = tiny.generator(), view()
  random = features.make_random_variables(generator, asked)
  images = tiny.batch(8)["image"]
  variables = random(3, [images])
  conv = variables["params"]["encoder"]["stage1"]["conv"]
  maps = jax.lax.conv_general_dilated(
    2 * pixels.from_uint8(images) - 1,
    conv["kernel"],
    (4, 4),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  maps = jax.nn.leaky_relu(maps + conv["bias"][None, None, None], 0.2)
  stats = variables["batch_stats"]["encoder"]["stage1"]["norm"]
  np.testing.assert_allclose(stats["mean"], maps.mean((0, 1, 2)), atol=1e-5)
  np.testing.assert_allclose(stats["var"], maps.var((0, 1, 2)), rtol=1e-4)
  again = random(3, [images])
  assert jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), variables, again))
  other = random(4, [images])["params"]["encoder"]["stage1"]["conv"]["kernel"]
  assert (other != conv["kernel"]).any()


# The commands


def write_classes(folder, count=12):
  """Writes dark and bright noise, a folder each, and a file that is no picture."""
  for name, level in (("dark", 0), ("bright", 100)):
    (folder / name).mkdir(parents=True)
    for i in range(count):
      picture = noise(20, 20, seed=i) // 2 + level
      (folder / name / f"{i:02d}.png").write_bytes(encode(picture.astype(np.uint8)))
  (folder / "dark" / "05x.png").write_bytes(b"no picture")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
  folder = tmp_path_factory.mktemp("classes")
  write_classes(folder)
  return folder


@pytest.fixture(scope="module")
def workdir(classes, tmp_path_factory):
  return tiny.train(
    tmp_path_factory.mktemp("runs") / "one",
    data__path=str(classes),
    data__load_size=20,
    num_steps=2,
    name="tiny",
  )


@pytest.mark.parametrize("batch_size", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_the_file_of_features(workdir, classes, tmp_path, batch_size, capsys):
  output = tmp_path / "new" / "features.npz"
  arguments = ["--workdir", workdir, "--images", classes, "--output", output]
  assert call("features", *arguments, "--batch-size", batch_size) == 0
  out, err = capsys.readouterr()
  assert "24 images" in out
  assert "Skipped 1: dark/05x.png (not a picture)" in err
  with np.load(output) as saved:
    names, found = saved["names"], saved["features"]
    assert saved["layer"] == "bottleneck"
    assert saved["run"] == "tiny"
    assert saved["step"] == 2
  assert list(output.parent.iterdir()) == [output]
  assert list(names) == [
    f"{kind}/{i:02d}.png" for kind in ("bright", "dark") for i in range(12)
  ]
  assert found.dtype == np.float32
  model = trained.load(workdir)
  examples = load(classes, image_size=20, validation_fraction=0.0).train
  extract = features.make_extract(model.generator, model.view)
  np.testing.assert_allclose(
    found, extract(model.variables, examples.images), atol=1e-5
  )


@pytest.mark.slow
def test_the_probe_of_dark_and_bright(workdir, classes, tmp_path, capsys):
  output = tmp_path / "probe.json"
  arguments = ["--workdir", workdir, "--images", classes, "--seeds", 0, 1]
  arguments += ["--layer", "stage1", "bottleneck", "--json", output]
  assert call("probe", *arguments) == 0
  out, err = capsys.readouterr()
  assert "18 training and 6 test images of 2 classes" in out
  assert "Skipped 1" in err
  figures = json.loads(output.read_text())
  assert figures["classes"] == {"bright": 12, "dark": 12}
  systems = figures["systems"]
  assert list(systems) == [
    *(f"{x}, {y}" for x in ("stage1", "bottleneck") for y in ("trained", "random")),
    "pixels 16x16",
    "mean colour",
    "majority class",
  ]
  assert systems["mean colour"]["accuracy"] == {"mean": 1, "low": 1, "high": 1}
  assert systems["mean colour"]["features"] == 3
  assert systems["majority class"]["accuracy"]["mean"] == 0.5
  for layer, found in figures["layers"].items():
    own, random = (systems[f"{layer}, {what}"] for what in ("trained", "random"))
    expected = np.mean(own["correct"]) - np.mean(found["by_seed"])
    assert found["difference"]["mean"] == pytest.approx(expected)
    assert random["accuracy"]["mean"] == pytest.approx(np.mean(found["by_seed"]))
    assert f"{layer}: trained minus random" in out


@pytest.mark.slow
def test_bad_arguments_are_one_line(workdir, classes, tmp_path, capsys):
  flat, few, one = tmp_path / "flat", tmp_path / "few", tmp_path / "one"
  for folder in (flat, few / "a", few / "b", one / "a"):
    folder.mkdir(parents=True)
    for i in range(6 if folder.name != "b" else 3):
      (folder / f"{i}.png").write_bytes(encode(noise(20, 20, seed=i)))
  output = ["--output", tmp_path / "x.npz"]
  there = "no layer 'stage9'; there are stage1 ("
  for command, arguments, message in [
    ("features", ["--layer", "stage9", *output], there),
    ("features", ["--output", tmp_path / "x.npy"], "must name a .npz"),
    ("features", ["--images", "./nowhere", *output], "nothing at './nowhere'"),
    ("features", ["--batch-size", "0", *output], "at least 1"),
    ("features", ["--workdir", tmp_path, *output], "no checkpoint"),
    ("probe", ["--layer", "stage1", "top"], "no layer 'top'"),
    ("probe", ["--images", flat], "6 of 6 images have no class, such as '0.png'"),
    ("probe", ["--images", few], "Of class 'b' there are 3 images"),
    ("probe", ["--images", one], "of one class, 'a'"),
    ("probe", ["--test-fraction", "1"], "must be within [0.01, 0.99], not 1"),
    ("probe", ["--test-fraction", "0.95"], "fewer than 2 training images"),
    ("probe", ["--seeds", "-1"], "--seeds must be at least 0"),
  ]:
    base = {"--workdir": workdir, "--images": classes}
    flags = [x for pair in base.items() if pair[0] not in arguments for x in pair]
    assert call(command, *flags, *arguments) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(f"ctx-encoder {command}: "), error
    assert message in error
  assert not (tmp_path / "x.npz").exists()
