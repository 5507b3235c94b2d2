"""The evaluation step, as a pure function."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp

from ctx_encoder import augment as augmentation
from ctx_encoder import masks, metrics, pixels
from ctx_encoder.models import precision
from ctx_encoder.training import keys
from ctx_encoder.training.setup import Run

Images = dict[str, jax.Array]
EvalStep = Callable[..., tuple[dict[str, jax.Array], Images]]


def make_eval_step(run: Run) -> EvalStep:
  """Returns `step(variables, batch, key) -> (metrics, images)`, to be jitted.

  The mask is a function of (key, the example's index), so an image gets the same hole
  at any batch size. Nothing is augmented.

  Args:
    run: generator, objective and holes.

  Returns:
    The step. Its metrics are `[B]` each: those of `metrics.by_region`, and the
    reconstruction loss. Its images are `[B, S, S, 3]` in [0, 1]: "original", "masked",
    "completed"; and "mask" `[B, S, S, 1]`.
  """
  return precision.on_cpus(_make_eval_step, run, run.in_float32())


def _make_eval_step(run: Run) -> EvalStep:
  view = run.view

  def step(variables: Any, batch: Mapping[str, jax.Array], key: jax.Array):
    key = keys.stream(key, "evaluation")
    images = augmentation.center_crop(
      pixels.from_uint8(batch["image"]), view.image_size
    )
    mask = masks.for_examples(run.sample_mask, key, batch["index"])
    examples = view.examples(images, mask)
    own = keys.per_example(keys.stream(key, "dropout"), batch["index"])
    outputs = cast(
      jax.Array,
      run.generator.apply(variables, examples.inputs, train=False, keys=own),
    )
    completed = view.completed(outputs, examples)
    measured = metrics.by_region(completed, images, mask)
    measured["loss/reconstruction"] = run.objective.reconstruction_loss(
      outputs, examples
    )
    shown = {
      "original": images,
      "mask": mask,
      # A smooth fill would hide where the hole is.
      "masked": masks.masked_image(images, mask, jnp.asarray(view.fill or 0.0)),
      "completed": completed,
    }
    return measured, shown

  return step
