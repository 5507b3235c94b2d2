"""bfloat16 networks: in float32 on CPUs, as configured elsewhere."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ctx_encoder.models import precision
from ctx_encoder.training import assembly, trainer
from ctx_encoder.training.eval_step import make_eval_step
from ctx_encoder.training.inference import make_complete
from ctx_encoder.training.setup import init_generator
from ctx_encoder.training.step import make_train_step

KEY = jax.random.key(0)
NOTICE = "model.dtype=bfloat16 runs in float32 on CPUs"


@functools.cache
def assembled(dtype, generator="photos"):
  changes = {"model__generator": generator, "model__mask_channel": True}
  run = assembly.run(tiny.config(model__dtype=dtype, model__width=1 / 64, **changes))
  if generator == "landscape":
    return run
  small = precision.with_settings(tiny.generator(), dtype=jnp.dtype(dtype))
  return dataclasses.replace(run, generator=small)


def lowered(function, *operands):
  """Returns what a function is lowered to, for CPUs and for TPUs."""
  traced = jax.jit(function).trace(*operands)
  return [traced.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "tpu")]


def variables(run):
  return jax.eval_shape(lambda: init_generator(run.generator, run.view, KEY, KEY))


def test_a_training_step_is_in_float32_on_cpus_only():
  run = assembled("bfloat16")
  optimizers = run.optimizers(run.generator, 10)
  state = jax.eval_shape(lambda: run.init(KEY, optimizers))
  on_cpu, on_tpu = lowered(make_train_step(run, optimizers), state, tiny.batch(4), KEY)
  assert "bf16" not in on_cpu
  for kind in ("convolution", "dot_general"):
    lines = [line for line in on_tpu.splitlines() if f"stablehlo.{kind}" in line]
    assert any("bf16" in line for line in lines), kind


@pytest.mark.parametrize(
  "generator", ["photos", pytest.param("landscape", marks=pytest.mark.slow)]
)
def test_inference_and_evaluation_are_in_float32_on_cpus_only(generator):
  run = assembled("bfloat16", generator)
  batch = tiny.batch(2)
  step = make_eval_step(run)
  texts = [lowered(step, variables(run), batch, KEY)]
  masks = np.zeros((2, 16, 16, 1), np.uint8)

  def complete(variables, images, keys):
    return make_complete(run.generator, variables, run.view)(images, masks, keys)

  texts.append(lowered(complete, variables(run), batch["image"], jax.random.split(KEY)))
  for on_cpu, on_tpu in texts:
    assert "bf16" not in on_cpu
    assert "bf16" in on_tpu


def test_on_this_cpu_results_equal_those_of_float32():
  exact, half = assembled("float32"), assembled("bfloat16")
  if jax.default_backend() != "cpu":
    pytest.skip("bfloat16 is computed with here")
  drawn = jax.jit(lambda: init_generator(exact.generator, exact.view, KEY, KEY))()
  images = tiny.batch(2)["image"]
  masks = jnp.zeros((2, 16, 16, 1)).at[:, 4:12, 4:12].set(1)
  expected, found = (
    make_complete(run.generator, drawn, run.view)(images, masks)
    for run in (exact, half)
  )
  assert (np.asarray(expected) != images).any()
  np.testing.assert_array_equal(found, expected)


def test_float32_networks_are_left_as_they_are():
  run = assembled("float32")
  assert run.in_float32() is run
  assert run.over_axis("i").generator.encoder.settings.axis_name == "i"


@pytest.mark.parametrize(("dtype", "times"), [("bfloat16", 1), ("float32", 0)])
def test_a_run_says_so_once(dtype, times, tmp_path):
  """Before it loads images, of which there are none."""
  config = tiny.config(model__dtype=dtype, data__path=str(tmp_path / "none"))
  said = []
  with pytest.raises(FileNotFoundError):
    trainer.train(config, tmp_path / "run", say=said.append)
  assert [NOTICE in line for line in said].count(True) == times
