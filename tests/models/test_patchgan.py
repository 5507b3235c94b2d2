"""The discriminators: sizes, receptive field, norms, scales."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from modules import (
  fresh_variables,
  random_images,
  random_variables,
  shapes_of,
)

from ctx_encoder.models import (
  MultiScale,
  PatchGAN,
  Settings,
  patchgan,
  probabilities,
  receptive_field,
)

NARROW = Settings(width=1 / 32)
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_every_depth_and_its_smallest_image(depth):
  for size in (3 * 2**depth, 128):
    _, logits = shapes_of(PatchGAN(depth=depth), 2, size, size, 3)
    side = size // 2**depth - 2
    assert (logits.shape, logits.dtype) == ((2, side, side, 1), jnp.float32)
    assert side >= 1


def test_receptive_field_of_every_layer():
  table = patchgan.kernels_and_strides()
  fields = [receptive_field(table[i:]) for i in reversed(range(len(table)))]
  assert fields == [4, 7, 16, 34, 70]
  assert receptive_field([]) == 1
  assert receptive_field([(11, 4), (3, 2)]) == 11 + 4 * 2


@pytest.mark.parametrize(("depth", "field"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_logit_depends_on_exactly_its_receptive_field(depth, field):
  assert receptive_field(patchgan.kernels_and_strides(depth)) == field
  size = 256 if depth == 4 else 128
  discriminator = PatchGAN(depth=depth, settings=Settings(width=1 / 64))
  shapes, logits = shapes_of(discriminator, 1, size, size, 3)
  # All weights are positive, so no gradients cancel.
  variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)
  middle = logits.shape[1] // 2

  @jax.jit
  def gradient(image):
    return jax.grad(lambda x: discriminator.apply(variables, x)[0, middle, middle, 0])(
      image
    )

  seen = np.asarray(gradient(jnp.ones((1, size, size, 3)))[0] != 0).all(axis=2)
  rows, columns = seen.any(axis=1), seen.any(axis=0)
  assert seen.sum() == field**2
  assert rows.sum() == columns.sum() == field
  assert np.ptp(np.flatnonzero(rows)) == np.ptp(np.flatnonzero(columns)) == field - 1


def test_probabilities_are_the_sigmoid_of_the_logits():
  logits = np.linspace(-30, 30, 13, dtype=np.float32)
  exact = 1 / (1 + np.exp(-logits.astype(np.float64)))
  np.testing.assert_allclose(probabilities(jnp.asarray(logits)), exact, rtol=1e-6)


# Bias correction of running statistics


@pytest.mark.slow
def test_patchgan_with_spectral_norms():
  module = PatchGAN(1, NARROW, norm="spectral")
  images = random_images(4, 16, 16, 3)
  variables = fresh_variables(module, 4, 16, 16, 3)
  names = {path[:-1] for path in flatten_dict(variables["params"])}
  assert names == {(name, "conv") for name in ("stage1", "stage2", "output")}
  assert {(*path, "u") for path in names} == set(flatten_dict(variables["batch_stats"]))
  np.testing.assert_array_equal(  # without updates in inference mode
    module.apply(variables, images), module.apply(variables, images)
  )

  def train(module, images):
    return module.apply(variables, images, train=True, mutable=["batch_stats"])

  logits, after = train(module, images)
  split = module.clone(settings=Settings(width=1 / 32, axis_name="devices"))
  mapped = jax.vmap(functools.partial(train, split), axis_name="devices")
  halves, mapped_after = mapped(images.reshape(2, 2, 16, 16, 3))
  np.testing.assert_allclose(halves.reshape(logits.shape), logits, atol=1e-5)
  for path, u in flatten_dict(after["batch_stats"]).items():
    both = flatten_dict(mapped_after["batch_stats"])[path]
    np.testing.assert_allclose(both, np.stack([u, u]), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(u), 1, rtol=1e-5)
    before = flatten_dict(variables["batch_stats"])[path]
    assert u.size == 1 or np.abs(u - before).max() > 1e-3


def test_patchgan_without_norms():
  module = PatchGAN(2, NARROW, norm="none")
  variables, _ = shapes_of(module, 1, 32, 32, 3)
  assert not any("norm" in path for path in flatten_dict(variables["params"]))
  assert "batch_stats" not in variables
  with pytest.raises(ValueError, match="batch, spectral, none, not 'group'"):
    shapes_of(PatchGAN(norm="group"), 1, 64, 64, 3)


@pytest.mark.parametrize("mask_input", [False, True])
def test_patchgans_of_several_scales(mask_input):
  module = MultiScale(2, 1, NARROW, "none", mask_input)
  images, mask = random_images(2, 24, 24, 3), random_images(2, 24, 24, 1)
  inputs = (images, mask) if mask_input else (images,)
  variables = module.init(jax.random.key(0), *inputs)
  logits, features = module.apply(variables, *inputs, features=True)
  for found, plain in zip(module.apply(variables, *inputs), logits, strict=True):
    np.testing.assert_array_equal(found, plain)
  assert [x.shape for x in logits] == [(2, 10, 10, 1), (2, 4, 4, 1)]
  one = PatchGAN(1, NARROW, "none", mask_input)
  for number, name in enumerate(("scale1", "scale2")):
    own, side = {"params": variables["params"][name]}, 2**number
    blocks = (2, 24 // side, side, 24 // side, side, -1)
    small = (np.asarray(x).reshape(blocks).mean((2, 4)) for x in inputs)
    expected, layers = one.apply(own, *small, features=True)
    np.testing.assert_allclose(logits[number], expected, rtol=1e-5, atol=1e-6)
    for stage, output in layers.items():
      np.testing.assert_allclose(features[f"{name}/{stage}"], output, 1e-5, 1e-6)
  assert len(features) == 4
  together = patchgan.joined(logits)
  np.testing.assert_array_equal(together[:, :100], logits[0].reshape(2, 100))
  np.testing.assert_array_equal(together[:, 100:], logits[1].reshape(2, 16))
  np.testing.assert_array_equal(patchgan.joined(logits[0]), logits[0])


@pytest.mark.slow
def test_patchgan_takes_the_mask_as_a_fourth_channel():
  module = PatchGAN(1, NARROW, mask_input=True)
  shape, mask = (1, 16, 16, 3), jnp.zeros((1, 16, 16, 1)).at[:, 4:8, 4:8].set(1)
  variables = random_variables(module, *shape, mask=mask)
  images = random_images(*shape)
  assert variables["params"]["stage1"]["conv"]["kernel"].shape == (4, 4, 4, 2)
  plain = PatchGAN(1, NARROW).clone()
  joined = jnp.concatenate([images, mask], axis=3)
  logits, features = module.apply(variables, images, mask, features=True)
  expected, expected_features = plain.apply(variables, joined, features=True)
  np.testing.assert_array_equal(logits, expected)
  assert list(features) == ["stage1", "stage2"]
  jax.tree.map(np.testing.assert_array_equal, features, expected_features)
  with pytest.raises(ValueError, match="`mask` if and only if mask_input"):
    module.apply(variables, images)
  with pytest.raises(ValueError, match="`mask` if and only if mask_input"):
    plain.apply(variables, images, mask)
  with pytest.raises(ValueError, match=r"must be \(1, 16, 16, 1\), not \(1, 16, 16\)"):
    module.apply(variables, images, mask[..., 0])
