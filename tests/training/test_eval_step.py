"""The evaluation step and inference, against NumPy and each other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recorders
import tiny
from recorders import BATCH, assert_close
from tiny import SIZE

from ctx_encoder.pixels import to_uint8
from ctx_encoder.training import assembly
from ctx_encoder.training.eval_step import make_eval_step
from ctx_encoder.training.inference import make_complete
from ctx_encoder.training.setup import init_generator

KEY = jax.random.key(7)


def make(**changes):
  """Returns (run, jitted evaluation step, variables) of a generator with noise."""
  run = dataclasses.replace(
    assembly.run(
      tiny.config(masks__kind="random_block", model__mask_channel=True, **changes)
    ),
    generator=tiny.generator(noise_dim=2),
  )
  init = jax.jit(lambda k: init_generator(run.generator, run.view, k, k))
  return run, jax.jit(make_eval_step(run)), init(jax.random.key(3))


@pytest.fixture(scope="module")
def made():
  return make()


def mean_by_hand(error, region):
  region = np.broadcast_to(region, error.shape)
  return np.array([e[r > 0].mean() for e, r in zip(error, region, strict=True)])


def test_evaluation_metrics_equal_numpys(made):
  _, evaluate, variables = made
  batch = tiny.batch(BATCH, side=20)  # stored larger: its centre is evaluated
  measured, images = evaluate(variables, batch, KEY)
  images = {name: np.asarray(image, np.float64) for name, image in images.items()}
  original, mask, completed = (
    images[name] for name in ("original", "mask", "completed")
  )
  wanted = batch["image"][:, 2:18, 2:18]
  np.testing.assert_allclose(original, wanted / 255, atol=1e-7)
  np.testing.assert_array_equal(images["masked"], original * (1 - mask))
  known = np.broadcast_to(mask == 0, original.shape)
  np.testing.assert_array_equal(to_uint8(completed)[known], wanted[known])
  assert (np.abs(completed - original)[~known] > 0.01).mean() > 0.9

  patch = np.zeros((1, SIZE, SIZE, 1))
  patch[:, 4:12, 4:12] = 1
  error = completed - original
  regions = {"hole": mask, "image": np.ones_like(mask), "patch": patch}
  for name, region in regions.items():
    square = mean_by_hand(error**2, region)
    absolute = mean_by_hand(np.abs(error), region)
    assert_close(measured[f"l1_{name}"], absolute, 1e-5)
    assert_close(measured[f"l2_{name}"], square, 1e-5)
    assert_close(measured[f"psnr_{name}"], -10 * np.log10(square), 1e-4)
  # On [-1, 1], where an error counts twice as much.
  assert_close(measured["loss/reconstruction"], 4 * measured["l2_hole"], 1e-4)


def test_an_example_has_the_same_result_in_every_batch(made):
  _, evaluate, variables = made
  batch = tiny.batch(BATCH)
  complete = evaluate(variables, batch, KEY)
  for rows in ([3, 1], [0, 2]):
    part = evaluate(variables, jax.tree.map(lambda x, r=rows: x[r], batch), KEY)
    expected = jax.tree.map(lambda x, r=rows: x[np.array(r)], complete)
    np.testing.assert_array_equal(part[1]["mask"], expected[1]["mask"])
    assert_close(part, expected, 1e-5)
  other = evaluate(variables, batch | {"index": batch["index"] + 1}, KEY)
  assert (other[1]["mask"] != complete[1]["mask"]).any(axis=(1, 2, 3)).all()
  again = evaluate(variables, batch, jax.random.key(8))
  assert (again[1]["mask"] != complete[1]["mask"]).any(axis=(1, 2, 3)).all()


def test_noise_depends_on_the_example(made):
  _, evaluate, variables = made
  batch = tiny.batch(BATCH)
  batch["image"][:] = 128
  batch["index"][1] = batch["index"][0]
  _, images = evaluate(variables, batch, KEY)
  completed = np.asarray(images["completed"])
  np.testing.assert_array_equal(completed[0], completed[1])
  both = np.asarray(images["mask"][0] * images["mask"][2])[..., 0] > 0
  assert both.any()
  assert (completed[0][both] != completed[2][both]).all()


@pytest.mark.parametrize("normalization", ["symmetric", "unit", "minmax"])
def test_of_a_patch_only_the_hole_is_pasted(normalization):
  run = recorders.make_run(
    remember=False,
    model__predict="patch",
    masks__center_fraction=0.375,
    data__normalization=normalization,
  )
  drawn = np.random.default_rng(0).uniform(0.1, 0.9, (BATCH, 8, 8, 3))
  batch = tiny.batch(BATCH)
  batch["image"][:, 0, 0] = [0, 255, 0]  # minmax is then the range of all pixels
  offset, factor = (0.0, 1.0) if normalization == "unit" else (0.5, 0.5)
  variables = {"params": {"canvas": jnp.float32((drawn - offset) / factor)}}
  _, images = make_eval_step(run)(variables, batch, KEY)
  expected = batch["image"] / 255
  expected[:, 5:11, 5:11] = drawn[:, 1:7, 1:7]
  np.testing.assert_allclose(images["completed"], expected, atol=1e-6)


def test_the_original_as_output_has_the_highest_psnr():
  batch = tiny.batch(BATCH)
  variables = {"params": {"canvas": jnp.float32(batch["image"] / 127.5 - 1)}}
  evaluate = make_eval_step(recorders.make_run(remember=False))
  measured, _ = evaluate(variables, batch, KEY)
  for region in ("hole", "image", "patch"):
    assert_close(measured[f"psnr_{region}"], np.full(BATCH, 100.0), 1e-6)
    assert_close(measured[f"l1_{region}"], np.zeros(BATCH), 1e-6)


@pytest.mark.parametrize("normalization", ["symmetric", "minmax"])
def test_inference_completes_as_the_evaluation_does(normalization):
  run, evaluate, variables = make(
    masks__fill="#ff8000", data__normalization=normalization
  )
  batch = tiny.batch(4)
  _, images = evaluate(variables, batch, jax.random.key(0))
  # The noise that the evaluation draws.
  stream = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 3), 2)
  keys = jax.vmap(lambda i: jax.random.fold_in(stream, i))(batch["index"])

  complete = make_complete(run.generator, variables, run.view)
  completed = np.asarray(complete(batch["image"], images["mask"] > 0, keys))
  expected = np.asarray(to_uint8(images["completed"]))
  assert completed.dtype == np.uint8
  assert np.abs(completed.astype(int) - expected).max() <= 1
  known = np.broadcast_to(np.asarray(images["mask"]) == 0, completed.shape)
  np.testing.assert_array_equal(completed[known], batch["image"][known])
  assert (completed != batch["image"])[~known].any()
