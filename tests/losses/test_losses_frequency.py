"""The focal frequency loss and statistics of colours, in float64 and as published."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from ctx_encoder import losses

DRAW = np.random.default_rng(0)
COMPLETED, TARGETS = DRAW.random((2, 3, 6, 8, 2), np.float32)
MASK = (DRAW.random((3, 6, 8, 1)) < 0.4).astype(np.float32)
OPTIONS = [
  {},
  {"alpha": 0.5, "log_matrix": True},
  {"alpha": 2.0, "patch_factor": 2},
]
options = pytest.mark.parametrize("options", OPTIONS)


def oracle(error, alpha=1.0, patch_factor=1, log_matrix=False):
  """Mean over patches, frequencies and channels, image by image."""
  found = []
  for image in error.astype(float):
    terms = []
    for half in np.split(image, patch_factor, axis=0):
      for patch in np.split(half, patch_factor, axis=1):
        for channel in np.moveaxis(patch, 2, 0):
          spectrum = abs(np.fft.fft2(channel, norm="ortho"))
          weight = spectrum**alpha
          weight = np.log(1 + weight) if log_matrix else weight
          terms.append(weight / weight.max() * spectrum**2)
    found.append(np.mean(terms))
  return found


@options
def test_values(options):
  loss = functools.partial(losses.focal_frequency_loss, **options)
  found = loss(COMPLETED, TARGETS)
  assert (found.shape, found.dtype) == ((3,), jnp.float32)
  np.testing.assert_allclose(found, oracle(COMPLETED - TARGETS, **options), 1e-5)
  inside = loss(COMPLETED, TARGETS, MASK)
  np.testing.assert_allclose(
    inside, oracle(MASK * (COMPLETED - TARGETS), **options), 1e-5
  )
  completed = MASK * COMPLETED + (1 - MASK) * TARGETS
  np.testing.assert_allclose(loss(completed, TARGETS), inside, 1e-5)
  np.testing.assert_array_equal(loss(TARGETS, TARGETS), 0)


@options
def test_it_is_that_of_the_published_package(options):
  torch = pytest.importorskip("torch")
  package = pytest.importorskip("focal_frequency_loss")
  theirs = package.FocalFrequencyLoss(**options)
  found = losses.focal_frequency_loss(COMPLETED, TARGETS, **options)
  for i in range(3):
    images = (
      torch.tensor(x[i : i + 1].transpose(0, 3, 1, 2)) for x in (COMPLETED, TARGETS)
    )
    np.testing.assert_allclose(found[i], theirs(*images).item(), 1e-5)


def test_without_focus_it_is_the_squared_error():
  found = losses.focal_frequency_loss(COMPLETED, TARGETS, alpha=0.0)
  expected = np.square(COMPLETED - TARGETS).mean((1, 2, 3))
  np.testing.assert_allclose(found, expected, 1e-5)  # Parseval


def test_no_gradient_flows_through_the_weights():
  def fixed(completed):
    energy = jnp.square(jnp.abs(jnp.fft.fft2(completed - TARGETS, axes=(1, 2)))) / 48
    weight = np.sqrt(np.asarray(jax.lax.stop_gradient(energy)))
    weight /= weight.max((1, 2), keepdims=True)
    return (weight * energy).mean((1, 2, 3)).sum()

  def loss(completed):
    return losses.focal_frequency_loss(completed, TARGETS).sum()

  found, expected = jax.grad(loss)(COMPLETED), jax.grad(fixed)(COMPLETED)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
  assert np.isfinite(jax.jit(jax.grad(loss))(TARGETS)).all()


def test_wrong_arguments():
  loss = losses.focal_frequency_loss
  with pytest.raises(ValueError, match="must have one shape"):
    loss(COMPLETED, TARGETS[:1])
  with pytest.raises(ValueError, match=r"mask must be \[B, H, W, 1\]"):
    loss(COMPLETED, TARGETS, MASK[:1])
  with pytest.raises(ValueError, match=r"patch_factor must .*\(3, 6, 8, 2\), unlike 4"):
    loss(COMPLETED, TARGETS, patch_factor=4)


# Statistics of colours


def statistics(pixels):
  return pixels.mean(0), np.cov(pixels.T, bias=True)


def test_color_statistics():
  mask = np.zeros((4, 9, 10, 1))
  mask[0, 3:6, 4:8] = mask[1, :2] = mask[2] = 1  # the last two have no ring, no hole
  images = DRAW.random((4, 9, 10, 3), np.float32)
  found = losses.color_statistics_loss(images, mask, width=2)
  assert found.dtype == jnp.float32
  rings = np.zeros((2, 9, 10), bool)
  rings[0, 1:8, 2:10] = rings[1, :4] = True
  for i in range(2):
    hole = mask[i, ..., 0] > 0
    pixels = images[i].astype(float)
    (m, s), (m2, s2) = map(statistics, (pixels[hole], pixels[rings[i] & ~hole]))
    expected = np.square(m - m2).mean() + np.square(s - s2).mean()
    np.testing.assert_allclose(found[i], expected, rtol=1e-5)
  np.testing.assert_array_equal(found[2:], 0)
  moved = images + np.array([1.0, 0, 0]) * mask
  np.testing.assert_array_less(
    found[:2], losses.color_statistics_loss(moved, mask, width=2)[:2]
  )


@pytest.mark.slow
def test_color_statistics_depend_on_no_position_and_have_gradients():
  mask = np.zeros((1, 6, 6, 1), np.float32)
  mask[:, 2:4, 1:5] = 1
  images = jnp.asarray(DRAW.random((1, 6, 6, 3)), jnp.float32)
  loss = functools.partial(losses.color_statistics_loss, mask=mask, width=3)
  inside = images[:, 2:4, 1:5]
  turned = images.at[:, 2:4, 1:5].set(inside[:, ::-1, ::-1])
  np.testing.assert_allclose(loss(turned), loss(images), rtol=1e-5)
  check_grads(loss, (images,), order=1, modes=["fwd", "rev"], rtol=3e-2)
  flat = jax.jit(jax.grad(lambda x: loss(x).sum()))(jnp.ones_like(images))
  np.testing.assert_allclose(flat, 0, atol=1e-7)
  with pytest.raises(ValueError, match="width must be at least 1, not 0"):
    loss(images, width=0)
