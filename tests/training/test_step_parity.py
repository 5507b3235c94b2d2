"""A complete step on our convolutions and poolings has the stock layers' gradients.

Each has tests of its own; here XLA compiles them together with what surrounds them.
"""

import jax
import numpy as np
import pytest
import recorders
import tiny
from stock import stock_layers

from ctx_encoder import config, xla
from ctx_encoder.training import assembly


def gradients(generator):
  """Returns the gradients of both networks in one step, and its metrics."""
  settings = config.default()
  settings.model.generator = generator
  settings.model.width = settings.discriminator.width = 0.125
  settings.data.image_size = 128
  run = recorders.with_rule(assembly.run(settings))
  *_, state, step = tiny.ready(run, options=xla.options())
  rng = np.random.default_rng(0)
  # Squares of one colour: many equal values in a pooling window.
  images = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
  images = images.repeat(8, axis=1).repeat(8, axis=2)
  batch = {"image": images, "index": np.arange(4, dtype=np.int32)}
  new, measured = step(state, batch, jax.random.key(0))
  networks = [(s.generator.params, s.discriminator.params) for s in (state, new)]
  return jax.tree.map(lambda old, new: np.asarray(old - new), *networks), measured


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["photos", "monet"])
def test_gradients_of_a_step(generator):
  ours, losses = gradients(generator)
  with stock_layers():
    stock, expected = gradients(generator)
  for name, loss in losses.items():
    np.testing.assert_allclose(loss, expected[name], rtol=1e-5, err_msg=name)

  def check(path, own, other):
    size = np.linalg.norm(other)
    # A bias before BatchNorm has a gradient of 0, apart from rounding.
    if size > 1e-6:
      apart = np.linalg.norm(own - other) / size
      # An activation that rounding pushes across 0 changes gradients by some 1e-4.
      assert apart < 2e-3, jax.tree_util.keystr(path)

  jax.tree_util.tree_map_with_path(check, ours, stock)
