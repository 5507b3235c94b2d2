"""The loss on a grid: its values, its gradient, and what it does to a made grid."""

import grids
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from ctx_encoder import losses

loss = jax.jit(losses.grid_loss, static_argnames="period")
gradient = jax.jit(jax.grad(lambda x, mask: losses.grid_loss(x, mask).sum()))


@pytest.fixture(scope="module")
def smooth():
  """Blurred photographs with noise, in [0, 1]."""
  noise = np.random.default_rng(0).normal(0, 0.01, (8, grids.SIDE, grids.SIDE, 3))
  blurred = ndimage.gaussian_filter(grids.photographs(), (0, 2, 2, 0))
  return (blurred + noise).astype(np.float32)


@pytest.mark.parametrize("period", [2, 8])
def test_it_is_the_formula(smooth, period):
  images, hole = smooth[:1] + 0.05 * grids.checkerboard(period), grids.holes()[:1]
  found = loss(images, hole, period=period)
  assert (found.shape, found.dtype) == ((1,), jnp.float32)
  expected = np.log(grids.energies(images[0], hole[0, ..., 0] > 0, period))
  assert expected > 1
  np.testing.assert_allclose(found, [expected], rtol=1e-3)


def test_only_the_hole_counts(smooth):
  holes = grids.holes()
  images = smooth + 0.05 * grids.checkerboard(2)
  elsewhere = np.where(holes > 0, images, 0.5)
  inside = np.where(holes > 0, 0.5, images)
  assert (loss(elsewhere, holes) > 1).all()
  assert loss(inside.astype(np.float32), holes).mean() < 0.3
  assert (np.asarray(gradient(elsewhere, holes))[holes[..., 0] == 0] == 0).all()


def test_its_gradient_removes_a_grid_and_not_the_rest(smooth):
  """Descends until the grid is gone; the change is mostly the grid's."""
  holes = grids.holes()
  board = 0.02 * holes * grids.checkerboard(2)
  images = smooth + board
  for _ in range(60):
    slope = gradient(images, holes)
    size = jnp.maximum(jnp.abs(slope).max((1, 2, 3), keepdims=True), 1e-12)
    images = images - 0.002 * slope / size
  assert loss(images, holes).mean() < 0.1 * loss(smooth + board, holes).mean()
  assert jnp.square(images - smooth).sum() < 0.5 * np.square(board).sum() * 3


def test_small_and_flat_holes_have_none(smooth):
  few = np.zeros((8, grids.SIDE, grids.SIDE, 1), bool)
  few[:, 20:30, 20:30] = True
  images = smooth + 0.1 * grids.checkerboard(2)
  np.testing.assert_array_equal(loss(images, few), 0)
  np.testing.assert_array_equal(gradient(images, few), 0)
  flat, holes = np.full_like(smooth, 0.3), grids.holes()
  np.testing.assert_allclose(loss(flat, holes), 0, atol=1e-4)
  assert np.isfinite(gradient(flat, holes)).all()


def test_wrong_arguments_are_refused():
  images, mask = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 16, 16, 1))
  for period in (1, 9):
    with pytest.raises(ValueError, match="half the image's side"):
      losses.grid_loss(images, mask, period=period)
  with pytest.raises(ValueError, match="1 in the hole"):
    losses.grid_loss(images, mask + 0.5)
