"""Pretrained encoders: features, freezing, complete runs."""

import functools
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ctx_encoder import config
from ctx_encoder.config import ENCODER_SIDES
from ctx_encoder.models import fold_batch_norm, pretrained
from ctx_encoder.models.feature_nets import network
from ctx_encoder.models.feature_nets.alexnet import AlexNet
from ctx_encoder.models.feature_nets.vgg import VGG
from ctx_encoder.training import assembly, inference, state, trained, trainer

SIDES = {"vgg16": 32, "alexnet": 64}
NETWORKS = {"vgg16": VGG(16), "alexnet": AlexNet()}


@functools.cache
def random_weights(name, naming):
  """Arrays with the names and axes of torchvision's or Keras's files."""
  rng, arrays = np.random.default_rng(1), {}
  for convolution in NETWORKS[name].convolutions:
    kernel = rng.normal(size=convolution.shape) / np.sqrt(
      np.prod(convolution.shape[:3]) / 2
    )
    bias = rng.normal(size=convolution.shape[3]) / 10
    if naming == "keras":
      names = f"{convolution.keras}/kernel", f"{convolution.keras}/bias"
    else:
      kernel = kernel.transpose(3, 2, 0, 1)
      names = f"{convolution.torchvision}.weight", f"{convolution.torchvision}.bias"
    arrays |= dict(zip(names, map(np.float32, (kernel, bias)), strict=True))
  return arrays


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
  path = tmp_path_factory.mktemp("weights") / "alexnet.npz"
  np.savez(path, **random_weights("alexnet", "torchvision"))
  return str(path)


def make_config(**changes):
  """A narrow generator with AlexNet, the smaller network, as encoder."""
  options = {
    "data__image_size": 64,
    "discriminator__depth": 1,
    "model__generator": "monet",
    "model__bottleneck": "channelwise",
    "model__width": 1 / 64,
    "model__encoder": "alexnet",
  }
  return tiny.config(**(options | changes))


@pytest.mark.parametrize(
  ("name", "naming"),
  [
    pytest.param("vgg16", "torchvision", marks=pytest.mark.slow),
    pytest.param("vgg16", "keras", marks=pytest.mark.slow),
    ("alexnet", "torchvision"),
  ],
)
def test_codes_equal_the_published_networks_features(name, naming):
  side, weights = SIDES[name], random_weights(name, naming)
  encoder = pretrained.PretrainedEncoder(name)
  params = pretrained.encoder_params(name, weights)
  images = jnp.float32(np.random.default_rng(0).random((2, side, side, 3)))
  features = network.feature_function(NETWORKS[name], weights, ["pool5"])
  expected = np.asarray(jax.jit(features)(images)["pool5"])
  code = jax.jit(lambda x: encoder.apply({"params": params}, x))(2 * images - 1)
  # At the border Keras's zeros stand for a colour that differs by up to 0.5 of 255.
  close = {"torchvision": 1e-5, "keras": 3e-3}[naming]
  np.testing.assert_allclose(code, expected, rtol=0, atol=close * expected.max())
  assert expected.std() > 0.1


def test_keras_first_layer_is_converted_for_torchvisions_input():
  rng = np.random.default_rng(0)
  kernel, bias = (jnp.float32(rng.normal(size=size)) for size in ((3, 3, 3, 8), 8))
  images = jnp.float32(rng.random((1, 9, 9, 3)))

  def layer(x, kernel, bias):
    dimensions = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "VALID", dimension_numbers=dimensions
    )
    return y + bias[None, None, None]

  expected = layer(network.caffe_input(images), kernel, bias)
  converted = network.for_torchvision_input(kernel, bias)
  actual = layer(network.torchvision_input(images), *converted)
  np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [pytest.param(False, marks=pytest.mark.slow), True])
def test_training_changes_all_but_frozen_encoders(frozen):
  run = assembly.run(make_config(model__freeze_encoder=frozen))
  *_, before, step = tiny.ready(run)
  after, _ = step(before, tiny.batch(2, side=64), jax.random.key(0))
  for part in ("encoder", "bottleneck", "decoder"):
    old, new = (
      jax.tree.leaves(each.generator.params[part]) for each in (before, after)
    )
    changed = any((a != b).any() for a, b in zip(old, new, strict=True))
    assert changed == (part != "encoder" or not frozen), part
  moments = before.generator.opt_state[0].mu["encoder"]
  count = sum(leaf.size for leaf in jax.tree.leaves(moments))
  params = jax.tree.leaves(before.generator.params["encoder"])
  assert count == (0 if frozen else sum(leaf.size for leaf in params))
  largest = state.magnitudes(after)
  assert all(np.isfinite(value) for value in largest.values())


@pytest.mark.slow
def test_a_run_needs_the_weight_file_only_at_its_start(
  weight_file, tmp_path, photographs
):
  copied = shutil.copy(weight_file, tmp_path)
  options = {
    "data__path": str(photographs),
    "model__encoder_weights": str(copied),
    "model__freeze_encoder": True,
    "ema_decay": 0.5,
    "num_steps": 2,
  }
  trainer.train(make_config(**options), tmp_path / "run", say=lambda text: None)
  pathlib.Path(copied).unlink()
  found = trained.load(tmp_path / "run")
  expected = pretrained.encoder_params(
    "alexnet", random_weights("alexnet", "torchvision")
  )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6),
    found.variables["params"]["encoder"],
    expected,
  )
  complete = inference.make_complete(found.generator, found.variables, found.view)
  batch = tiny.batch(2, side=64)["image"]
  hole = np.zeros((2, 64, 64, 1), np.float32)
  hole[:, 20:40, 20:40] = 1
  completed = np.asarray(complete(batch, hole))
  np.testing.assert_array_equal(completed == batch, (completed == batch) | (hole == 0))
  assert (completed != batch).any()


def test_folding_keeps_a_pretrained_encoder():
  generator = assembly.generator(make_config())
  variables = jax.eval_shape(
    generator.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
  )
  folded = jax.eval_shape(
    lambda variables: fold_batch_norm(generator, variables)[1], variables
  )
  shapes = jax.tree.map(jnp.shape, (folded, variables))
  assert shapes[0]["params"]["encoder"] == shapes[1]["params"]["encoder"]


@pytest.mark.parametrize(
  ("changes", "problem"),
  [
    ({"model__encoder": "auto", "model__freeze_encoder": True}, "need 'model.encoder'"),
    ({"model__encoder": "auto", "model__encoder_weights": "x"}, "need 'model.encoder'"),
    ({"model__mask_channel": True}, "takes three colour channels"),
    ({"data__normalization": "unit"}, "takes three colour channels"),
  ],
)
def test_contradicting_fields_are_refused(changes, problem):
  with pytest.raises(ValueError, match=problem):
    config.validate(make_config(**changes))


def test_wrong_weights_are_refused_before_training(tmp_path, photographs):
  wrong = tmp_path / "wrong.npz"
  np.savez(wrong, other=np.zeros(3))
  options = {"data__path": str(photographs), "model__encoder_weights": str(wrong)}
  workdir = tmp_path / "run"
  with pytest.raises(ValueError, match=r"have no array features\.0\.weight"):
    trainer.train(make_config(**options), workdir, say=lambda text: None)


def test_images_below_the_minimum_size_are_refused():
  for name, least in ENCODER_SIDES.items():
    encoder = pretrained.PretrainedEncoder(name)

    def code(side, encoder=encoder):
      image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
      return jax.eval_shape(encoder.init_with_output, jax.random.key(0), image)[0]

    assert min(code(least).shape[1:3]) == 1
    with pytest.raises(ValueError, match=f"at least {least} pixels a side, not"):
      code(least - 1)
  config = make_config(data__image_size=32)
  with pytest.raises(ValueError, match=r"set model\.encoder to vgg16 or auto"):
    tiny.abstract_state(config)
