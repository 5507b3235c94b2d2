"""Style transfer: loss, optimiser, pictures, and the command."""

import functools
import json

import command as shell
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import refusal
from jax.test_util import check_grads
from pictures import contents, load
from PIL import Image
from scipy import linalg, optimize

from ctx_encoder.apps.commands import stylize as command
from ctx_encoder.apps.stylize import lbfgs, stylize
from ctx_encoder.models.feature_nets import random_filters, vgg

SIDE = 32


def photographs(count=2, side=SIDE):
  """Returns uint8 pictures with a bright disc on a slope of colours."""
  y, x = np.mgrid[:side, :side] / side
  images = []
  for number in range(count):
    slope = np.stack([x, 0.5 * y, 0.3 + 0.2 * x * y], axis=-1)
    disc = (x - 0.3 - 0.2 * number) ** 2 + (y - 0.5) ** 2 < 0.04
    images.append(np.where(disc[..., None], [0.9, 0.8, 0.7], 0.2 + 0.5 * slope))
  return np.rint(255 * np.stack(images)).astype(np.uint8)


def paintings(count=2, side=SIDE):
  """Returns uint8 pictures of stripes, blue to yellow."""
  y, x = np.mgrid[:side, :side]
  images = []
  for number in range(count):
    stripes = 0.5 + 0.5 * np.sin(1.5 * x + (0.3 + number) * y)[..., None]
    images.append(stripes * [0.9, 0.8, 0.2] + (1 - stripes) * [0.1, 0.2, 0.6])
  return np.rint(255 * np.stack(images)).astype(np.uint8)


def filters(channels=8):
  key = jax.random.key(0)
  small = random_filters.multi_scale_features(key, kernels=(5,), channels=channels)
  return random_filters.pyramid(small, 2)


def unit(images):
  return jnp.asarray(images, jnp.float32) / 255


def terms_of(images, content, style, recipe=None, features=None):
  """Returns `loss_terms` of pictures, for uint8 contents and styles."""
  recipe, features = recipe or stylize.Recipe(), features or filters()
  targets = stylize.make_targets(features, unit(content), unit(style), recipe)
  return stylize.loss_terms(features, images, targets, recipe)


class TestLossTerms:
  @pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
  @pytest.mark.parametrize("content_layers", [(), ("one",)])
  def test_values(self, dtype, content_layers):
    def features(images):
      one = (images[:, ::2, :, :2] * 3 - 1).astype(dtype)
      return {"one": one, "two": images[:, 1:].astype(dtype), "not": images}

    recipe = stylize.Recipe(("one", "two"), content_layers)
    draw = np.random.default_rng(0)
    images, content, style = (
      jnp.asarray(draw.random((2, 6, 5, 3)), jnp.float32) for _ in range(3)
    )
    targets = stylize.make_targets(features, content, style, recipe)
    terms = stylize.loss_terms(features, images, targets, recipe)
    x, p, s = (
      {k: np.asarray(v, np.float64) for k, v in features(images).items()}
      for images in (images, content, style)
    )

    def relative(a, b):
      return ((a - b) ** 2).sum(tuple(range(1, a.ndim))) / (b**2).sum(
        tuple(range(1, a.ndim))
      )

    def gram(a):
      return np.einsum("bhwi,bhwj->bij", a, a) / (a.shape[1] * a.shape[2])

    expected = np.mean([relative(gram(x[k]), gram(s[k])) for k in ("one", "two")], 0)
    np.testing.assert_allclose(terms["style"], expected, rtol=1e-4)
    if content_layers:
      expected = relative(x["one"], p["one"])
    else:
      expected = (np.asarray(images - content, float) ** 2).mean((1, 2, 3)) / 0.01
    np.testing.assert_allclose(terms["content"], expected, rtol=1e-4)
    y = np.asarray(images, float)
    steps = sum(abs(np.diff(y, axis=axis)).sum((1, 2, 3)) for axis in (1, 2))
    np.testing.assert_allclose(terms["total_variation"], steps / 90, rtol=1e-5)
    assert {(v.shape, v.dtype) for v in terms.values()} == {
      ((2,), jnp.dtype("float32"))
    }

  def test_gradients_and_nan(self):
    features = jax.tree_util.Partial(lambda x: {"a": jnp.square(x) + x[..., ::-1]})
    content, style = photographs(2, 6), paintings(2, 6)

    def total(images):
      return sum(terms_of(images, content, style, features=features).values())

    images = jnp.asarray(np.random.default_rng(0).random((2, 6, 6, 3)), jnp.float32)
    check_grads(total, (images,), order=1, modes=["rev"], rtol=3e-2)
    values = total(images.at[1, 0, 0, 0].set(jnp.nan))
    np.testing.assert_array_equal(np.isfinite(values), [True, False])

  @pytest.mark.slow
  def test_zero_for_equal_pictures(self):
    terms = terms_of(unit(photographs()), photographs(), photographs())
    np.testing.assert_allclose(terms["style"], 0, atol=1e-10)
    np.testing.assert_array_equal(terms["content"], 0)

  def test_unknown_layer(self):
    with pytest.raises(ValueError, match=r"no layer 'a'; there are filters5/1, filt"):
      terms_of(unit(photographs()), photographs(), paintings(), stylize.Recipe(("a",)))


def test_pyramid_matches_pillow():
  images = unit(photographs())
  found = random_filters.pyramid(jax.tree_util.Partial(lambda x: {"x": x}), 3)(images)
  assert list(found) == ["x/1", "x/2", "x/4"]
  np.testing.assert_array_equal(found["x/1"], images)
  for factor in (2, 4):
    size = (SIDE // factor, SIDE // factor)
    for channel in range(3):
      picture = Image.fromarray(np.asarray(images[1, :, :, channel]))
      expected = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
      result = found[f"x/{factor}"][1, :, :, channel]
      np.testing.assert_allclose(result, expected, atol=1e-5)


class TestMatchColors:
  def test_moments_match(self):
    draw = np.random.default_rng(0)
    images = 0.5 + 0.1 * draw.normal(size=(2, 9, 8, 3)) @ draw.normal(size=(3, 3)) / 2
    others = 0.4 + 0.05 * draw.normal(size=(2, 7, 5, 3)) @ draw.normal(size=(3, 3)) / 2
    images, others = (x.clip(0, 1).astype(np.float32) for x in (images, others))
    result = np.asarray(jax.jit(stylize.match_colors)(images, others))
    for one, target, before in zip(result, others, images, strict=True):
      one, target, before = (
        x.reshape(-1, 3).astype(float) for x in (one, target, before)
      )
      np.testing.assert_allclose(one.mean(0), target.mean(0), atol=1e-4)
      own, wanted = (
        np.cov(x.T, bias=True) + 1e-4 * np.eye(3) for x in (before, target)
      )
      root = linalg.sqrtm(own)
      inverse = linalg.inv(root)
      matrix = inverse @ linalg.sqrtm(root @ wanted @ root) @ inverse
      expected = (before - before.mean(0)) @ matrix + target.mean(0)
      np.testing.assert_allclose(one, expected.clip(0, 1), atol=1e-4)

  def test_own_colours_change_nothing(self):
    images = unit(photographs())
    np.testing.assert_allclose(stylize.match_colors(images, images), images, atol=1e-4)

  def test_without_colours(self):
    plain = jnp.full((1, 8, 8, 3), 0.25)
    np.testing.assert_allclose(stylize.match_colors(plain, plain), plain, atol=1e-5)
    result = stylize.match_colors(plain, unit(paintings(1)))
    expected = unit(paintings(1)).mean((1, 2), keepdims=True)
    np.testing.assert_allclose(result, jnp.broadcast_to(expected, (1, 8, 8, 3)), 1e-4)


@functools.cache
def default():
  return stylize.make_stylize(filters(), stylize.Recipe(steps=15))


class TestStylize:
  def test_texture_is_transferred_and_content_kept(self):
    content, style = photographs(), paintings()
    result = default()(content, style)
    assert result.shape == content.shape
    assert result.dtype == np.uint8
    matched = stylize.match_colors(unit(content), unit(style))
    before = terms_of(matched, content, style)["style"]
    after = terms_of(unit(result), content, style)["style"]
    assert (after < before / 10).all()
    # The disc of the photograph is still where it was.
    for one, photograph in zip(result, matched, strict=True):
      shown = np.corrcoef(one.mean(-1).ravel(), np.mean(photograph, -1).ravel())[0, 1]
      assert shown > 0.5
    np.testing.assert_array_equal(default()(content, style), result)

  @pytest.mark.slow
  def test_pictures_are_independent(self):
    content, style = photographs(3), paintings(3)
    together = default()(content, style).astype(int)
    for number in range(3):
      alone = default()(content[number : number + 1], style[number : number + 1])
      difference = np.abs(alone[0].astype(int) - together[number])
      assert difference.mean() < 0.5
      assert np.abs(together[number - 1] - together[number]).mean() > 10

  @pytest.mark.slow
  def test_content_weight(self):
    content, style = photographs(), paintings()
    matched = stylize.match_colors(unit(content), unit(style))
    heavy = stylize.make_stylize(filters(), stylize.Recipe(content_weight=10, steps=15))
    far, near = (
      np.abs(unit(paint(content, style)) - matched).mean()
      for paint in (default(), heavy)
    )
    assert near < far / 2

  @pytest.mark.slow
  def test_tv_weight(self):
    content, style = photographs(), paintings()
    smooth = stylize.make_stylize(filters(), stylize.Recipe(tv_weight=1, steps=15))
    rough, plain = (
      terms_of(unit(paint(content, style)), content, style)["total_variation"]
      for paint in (default(), smooth)
    )
    assert (plain < 0.7 * rough).all()

  @pytest.mark.slow
  def test_keep_colors(self):
    content, style = photographs(), paintings()
    recipe = stylize.Recipe(steps=15, keep_colors=True)
    kept = stylize.make_stylize(filters(), recipe)(content, style)
    painted = default()(content, style)
    photo, painting, kept, painted = (
      images.mean((1, 2)) for images in (content, style, kept, painted)
    )
    far = np.abs(photo - painting).max()
    assert np.abs(kept - photo).max() < far / 2
    assert np.abs(painted - painting).max() < far / 2

  def test_pictures_of_one_colour(self):
    plain = np.full((2, SIDE, SIDE, 3), [[[[0]]], [[[255]]]], np.uint8)
    np.testing.assert_array_equal(default()(plain, plain[::-1]), plain[::-1])
    assert default()(plain, paintings()).shape == plain.shape

  def test_black_and_white_pixels_change(self):
    halves, stripes = np.zeros((2, 1, SIDE, SIDE, 3), np.uint8)
    halves[:, :, SIDE // 2 :] = stripes[:, :, ::2] = 255
    result = default()(halves, stripes)
    assert (np.abs(result.astype(int) - halves) > 20).mean() > 0.2

  def test_errors(self):
    content = photographs()
    for style in (paintings(3), paintings(2, 16), paintings()[..., :1], paintings()[0]):
      with pytest.raises(ValueError, match=r"must have one shape \[B, H, W, 3\], not"):
        default()(content, style)
    broken = jax.tree_util.Partial(lambda x: {"a": x * jnp.nan})
    paint = stylize.make_stylize(broken, stylize.Recipe(steps=2))
    with pytest.raises(ValueError, match="loss is NaN or infinite"):
      paint(content, paintings())


class TestLbfgs:
  def run(self, loss, x, steps):
    states = [lbfgs.start(x)]
    update = jax.jit(functools.partial(lbfgs.update, loss=loss))
    for _ in range(steps):
      states.append(update(states[-1]))
    return states

  @pytest.mark.slow
  def test_reaches_the_minimum_monotonically(self):
    def rosenbrock(x):
      left, right = x[:, :-1], x[:, 1:]
      return jnp.sum(100 * (right - left**2) ** 2 + (1 - left) ** 2, axis=1)

    x = jnp.array([[-1.2, 1.0, -0.5], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]])
    states = self.run(rosenbrock, x, 150)
    values = np.stack([state.value for state in states])
    assert (values[1:] <= values[:-1]).all()
    np.testing.assert_array_equal(values[1], rosenbrock(x))
    np.testing.assert_allclose(states[-1].x, 1, atol=1e-2)
    found = optimize.minimize(optimize.rosen, x[0], jac=optimize.rosen_der)
    assert found.nfev < 150  # SciPy needs about as many
    alone = self.run(rosenbrock, x[:1], 20)[-1].x
    np.testing.assert_allclose(alone[0], states[20].x[0], rtol=1e-4)

  def test_no_step_to_a_nan(self):
    def loss(x):  # NaN below 0
      return jnp.sum(x - jnp.log(x), axis=1)

    states = self.run(loss, jnp.array([[0.01, 30.0], [-1.0, 1.0]]), 60)
    np.testing.assert_allclose(states[-1].x[0], 1, atol=1e-2)
    np.testing.assert_array_equal(np.isinf(states[-1].value), [False, True])
    np.testing.assert_array_equal(states[-1].x[1], [-1, 1])


def folder(path, pictures, prefix):
  path.mkdir()
  for number, pixels in enumerate(pictures):
    Image.fromarray(pixels).save(path / f"{prefix}{number}.png")
  return path


@pytest.fixture
def folders(tmp_path):
  content = folder(tmp_path / "photos", photographs(3), "photo")
  return content, folder(tmp_path / "paintings", paintings(4), "monet")


def line(folders, output, *arguments):
  """Returns a command line."""
  content, style = folders
  common = ["--content", content, "--style", style, "--output", output]
  small = ["--image-size", SIDE, "--batch-size", 2, "--steps", 2]
  return [command, *common, *small, *arguments]


def call(*arguments):
  return shell.call(*line(*arguments))


def first_layers(path):
  """Writes weights of VGG's first two convolutions."""
  draw = np.random.default_rng(0)
  arrays = {}
  for name, inputs in (("features.0", 3), ("features.2", 64)):
    arrays[f"{name}.weight"] = draw.normal(0, 0.1, (64, inputs, 3, 3)).astype("f4")
    arrays[f"{name}.bias"] = np.zeros(64, np.float32)
  np.savez(path, **arrays)
  return path


class TestCommand:
  @pytest.mark.slow
  def test_a_picture_for_each_photograph(self, folders, tmp_path, capsys):
    output = tmp_path / "out"
    assert call(folders, output) == 0
    printed = capsys.readouterr().out
    assert "3 pictures written, 0 existed, 0 images skipped" in printed
    assert f"--config.data.path={output}" in printed
    pictures = sorted(output.glob("*.png"))
    assert [path.name.partition("__monet")[0] for path in pictures] == [
      "photo0",
      "photo1",
      "photo2",
    ]
    for path, photograph in zip(pictures, photographs(3), strict=True):
      with Image.open(path) as image:
        assert image.mode == "RGB"
        pixels = np.asarray(image).astype(int)
      assert pixels.shape == (SIDE, SIDE, 3)
      assert np.abs(pixels - photograph).mean() > 5
    note = json.loads((output / "stylize.json").read_text())
    assert (note["features"], note["steps"]) == ("random", 2)
    loaded = load(output, image_size=SIDE, loader="pillow", validation_fraction=0.0)
    assert (loaded.summary.found, loaded.summary.skipped) == (3, {})

  @pytest.mark.slow
  def test_the_next_call_completes_an_interrupted_one(self, folders, tmp_path, capsys):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert call(folders, whole, "--batch-size", 1) == 0
    assert call(folders, resumed, "--batch-size", 1, "--count", 1) == 0
    (first,) = resumed.glob("*.png")
    kept = first.stat().st_mtime_ns
    missing = next(path.name for path in whole.glob("*.png") if path.name != first.name)
    (resumed / f".new.{missing}").write_bytes(b"half")
    capsys.readouterr()
    assert call(folders, resumed, "--batch-size", 1) == 0
    assert "2 pictures written, 1 existed" in capsys.readouterr().out
    assert contents(resumed) == contents(whole)
    assert first.stat().st_mtime_ns == kept
    assert call(folders, resumed, "--count", 2) == 0
    assert "0 pictures written, 2 existed" in capsys.readouterr().out

  @pytest.mark.slow
  def test_paintings_depend_only_on_seed_and_name(self, folders, tmp_path):
    names = {}
    for seed in range(3):
      assert call(folders, tmp_path / f"{seed}", "--seed", seed, "--steps", 1) == 0
      names[seed] = set(contents(tmp_path / f"{seed}"))
    assert len(set.union(*names.values())) > 4  # one is the file of settings
    (folders[0] / "photo0.png").unlink()
    assert call(folders, tmp_path / "less", "--steps", 1) == 0
    assert set(contents(tmp_path / "less")) < names[0]

  @pytest.mark.slow
  def test_folders_and_extensions_are_kept_apart(self, folders, tmp_path):
    folder(folders[0] / "more", photographs(1), "photo")
    Image.new("RGB", (40, 48), "red").save(folders[0] / "photo0.bmp")
    assert call(folders, tmp_path / "out", "--steps", 1) == 0
    written = {name.partition("__")[0] for name in contents(tmp_path / "out")}
    assert written == {
      "more/photo0",
      "photo0.bmp",
      "photo0.png",
      "photo1",
      "photo2",
      "stylize.json",
    }

  @pytest.mark.slow
  def test_bad_files_are_named_and_skipped(self, folders, tmp_path, capsys):
    for path in folders:
      (path / "broken.png").write_bytes(b"not a picture")
    assert call(folders, tmp_path / "out") == 0
    streams = capsys.readouterr()
    assert "3 pictures written, 0 existed, 2 images skipped" in streams.out
    lines = [line for line in streams.err.splitlines() if line.startswith("skipped")]
    assert sorted(lines) == sorted(
      f"skipped  {path}/broken.png: not a picture" for path in folders
    )

  def test_other_files_and_settings_are_refused(self, folders, tmp_path, capsys):
    output = tmp_path / "out"
    assert call(folders, output, "--count", 1) == 0
    before = contents(output)
    for option in ("--seed", "--steps", "--style-weight"):
      error = refusal(capsys, *line(folders, output, option, 7))
      assert "not made with these settings" in error
    (output / "notes.txt").write_text("mine")
    error = refusal(capsys, *line(folders, output))
    assert "such as notes.txt: name an empty folder" in error
    assert contents(output) == before | {"notes.txt": b"mine"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    assert call(folders, tmp_path / "mine") == 1
    assert contents(tmp_path / "mine") == {"a.txt": b"mine"}

  @pytest.mark.slow
  def test_first_layers_of_a_vgg(self, folders, tmp_path, capsys):
    file = first_layers(tmp_path / "first.npz")
    network = ("--features", "vgg16", "--weights", file)
    assert call(folders, tmp_path / "out", *network, "--count", 1) == 0
    note = json.loads((tmp_path / "out" / "stylize.json").read_text())
    assert note["weights"] == "first.npz"
    assert note["style_layers"] == ["relu1_1", "relu1_2"]
    assert note["content_layers"] == ["relu1_2"]

  @pytest.mark.parametrize("name", ["vgg16", "vgg19"])
  def test_a_complete_vgg_has_the_layers_of_gatys_et_al(self, name, monkeypatch):
    whole = {}
    for convolution in vgg.VGG(int(name[3:])).convolutions:
      whole[f"{convolution.keras}/kernel"] = np.zeros(convolution.shape, "f4")
      whole[f"{convolution.keras}/bias"] = np.zeros(convolution.shape[3], "f4")
    monkeypatch.setattr(command.weights, "load", lambda path: whole)
    arguments = f"--content c --style s --output o --features {name} --weights w"
    args = shell.parse(command, *arguments.split())
    _, recipe = command._features_and_recipe(args)
    assert recipe.style_layers == tuple(f"relu{block}_1" for block in range(1, 6))
    assert recipe.content_layers == ("relu4_2",)

  def test_bad_arguments(self, folders, tmp_path, capsys):
    for arguments, message in (
      (("--image-size", 16), "--image-size must be within"),
      (("--steps", 0), "--steps must be within"),
      (("--batch-size", 0), "--batch-size must be within"),
      (("--style-weight", 0), "--style-weight must be within"),
      (("--content-weight", "nan"), "--content-weight must be within"),
      (("--tv-weight", -1), "--tv-weight must be within"),
      (("--seed", -1), "--seed must be within"),
      (("--count", 4), "--count 4: there are 3 images"),
      (("--features", "vgg16"), "--features vgg16 needs --weights"),
      (("--weights", "a.npz"), "--weights needs --features"),
      (("--features", "vgg16", "--weights", "missing.npz"), "missing.npz"),
    ):
      assert message in refusal(capsys, *line(folders, tmp_path / "out", *arguments))
      assert not (tmp_path / "out").exists()

  def test_weights_of_another_network(self, folders, tmp_path, capsys):
    np.savez(tmp_path / "other.npz", kernel=np.zeros((3, 3)))
    network = ("--features", "vgg19", "--weights", tmp_path / "other.npz")
    error = refusal(capsys, *line(folders, tmp_path / "out", *network))
    assert "features.0.weight" in error

  def test_bad_folders(self, folders, tmp_path, capsys):
    content, style = folders

    def refused(folders, output, message):
      assert call(folders, output) == 1
      error = capsys.readouterr().err
      assert message in error
      assert error.splitlines()[-1].startswith("ctx-encoder stylize: ")

    refused((content, tmp_path / "none"), tmp_path / "out", "--style")
    refused((tmp_path / "none", style), tmp_path / "out", "no such folder")
    for inside in (content, style / "new"):
      refused(folders, inside, "or a folder inside it")
    (tmp_path / "empty").mkdir()
    refused((tmp_path / "empty", style), tmp_path / "out", "No images")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"")
    refused((content, tmp_path / "bad"), tmp_path / "out", "None of the 1 images")
    refused((tmp_path / "bad", style), tmp_path / "out", "None of the 1 images")
    Image.new("RGB", (SIDE, SIDE)).save(style / "monet_aug01.png")
    refused(
      folders, tmp_path / "new", "--style holds augmented copies (monet_aug01.png)"
    )
