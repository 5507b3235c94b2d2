"""Completing images: what comes out is what the evaluation sees, known pixels kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ctx_encoder import pixels
from ctx_encoder.augment import make_augment
from ctx_encoder.masks import make_sampler
from ctx_encoder.training.inference import make_complete
from ctx_encoder.training.step import make_eval_step
from ctx_encoder.training.task import Task


@pytest.mark.parametrize("normalization", ["symmetric", "minmax"])
def test_completed_images_are_those_of_the_evaluation(normalization):
  generator = tiny.generator(noise_dim=2)
  task = Task(
    image_size=tiny.SIZE,
    sample_mask=make_sampler("random_block", tiny.SIZE),
    augment=make_augment(image_size=tiny.SIZE),
    fill=(1.0, 0.5, 0.0),
    normalization=normalization,
    mask_channel=True,
  )
  batch = tiny.batch(4)
  keys = jax.random.split(jax.random.key(1), 4)
  inputs = jnp.zeros((4, tiny.SIZE, tiny.SIZE, 4))
  variables = generator.init(jax.random.key(0), inputs, keys=keys)
  _, images = make_eval_step(generator, task)(variables, batch, jax.random.key(0))
  # The noise that the evaluation draws.
  stream = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 3), 2)
  keys = jax.vmap(lambda i: jax.random.fold_in(stream, i))(batch["index"])

  complete = make_complete(generator, variables, task)
  completed = np.asarray(complete(batch["image"], images["mask"] > 0, keys))
  expected = np.asarray(pixels.to_uint8(images["completed"]))
  assert completed.dtype == np.uint8
  assert np.abs(completed.astype(int) - expected).max() <= 1
  known = np.broadcast_to(np.asarray(images["mask"]) == 0, completed.shape)
  np.testing.assert_array_equal(completed[known], np.asarray(batch["image"])[known])
  assert (completed != np.asarray(batch["image"]))[~known].any()
