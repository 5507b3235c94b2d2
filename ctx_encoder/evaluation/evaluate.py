"""Metrics of a generator, and of the baselines, over a set of images."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ctx_encoder import data, distributed, metrics, pixels
from ctx_encoder.evaluation import baselines

EvalStep = Callable[..., tuple[dict[str, jax.Array], dict[str, jax.Array]]]
Means = dict[str, float]

MODEL = "this model"  # its row among those of the baselines

_by_region = jax.jit(metrics.by_region)


def evaluate(
  eval_step: EvalStep,
  variables: Any,
  examples: data.Examples,
  key: jax.Array,
  *,
  batch_size: int,
) -> Means:
  """Returns the mean over images of every metric of the evaluation step.

  Args:
    eval_step: jitted, see `step.make_eval_step`.
    variables: of the generator.
    examples: images to complete.
    key: PRNG key of the masks.
    batch_size: images a call, over all processes; it does not change the result.
  """
  total = _Mean()
  for batch in _batches(examples, batch_size):
    measured, _ = eval_step(variables, _inputs(batch), key)
    total.add(measured, batch["weight"])
  return total.means()


def compare(
  eval_step: EvalStep,
  variables: Any,
  examples: data.Examples,
  key: jax.Array,
  *,
  batch_size: int,
) -> dict[str, Means]:
  """Returns {system: metrics} of the generator (MODEL) and of every baseline.

  All complete the same images and holes. Baselines work on uint8 images, as they would
  in use.
  """
  systems = baselines.available()
  totals = {name: _Mean() for name in (*systems, MODEL)}
  for batch in _batches(examples, batch_size):
    measured, images = eval_step(variables, _inputs(batch), key)
    totals[MODEL].add(measured, batch["weight"])
    originals = np.asarray(pixels.to_uint8(images["original"]))
    masks = np.asarray(images["mask"][..., 0]) > 0
    for name, complete in systems.items():
      completed = np.stack(list(map(complete, originals, masks)))
      measured = _by_region(
        pixels.from_uint8(completed), images["original"], images["mask"]
      )
      totals[name].add(measured, batch["weight"])
  return {name: total.means() for name, total in totals.items()}


def show(
  eval_step: EvalStep,
  variables: Any,
  examples: data.Examples,
  key: jax.Array,
  *,
  count: int,
  batch_size: int,
) -> list[list[np.ndarray]]:
  """Returns rows [original, masked, completed] of images spread over the examples.

  The same images with the same holes at every call.
  """
  count = min(count, len(examples))
  chosen = np.linspace(0, len(examples) - 1, count).astype(int)
  rows = []
  for start in range(0, count, batch_size):
    # Filled up to the batch that is compiled already.
    positions = np.resize(chosen[start : start + batch_size], batch_size)
    batch = {"image": examples.gather(positions), "index": examples.ids[positions]}
    _, images = eval_step(variables, batch, key)
    shown = {name: np.asarray(pixels.to_uint8(image)) for name, image in images.items()}
    for i in range(min(batch_size, count - start)):
      rows.append([shown[name][i] for name in ("original", "masked", "completed")])
  return rows


def table(results: Mapping[str, Mapping[str, float]]) -> str:
  """Returns a table of systems against the metrics of the hole."""
  width = max(len(name) for name in results)
  lines = [f"{'':{width}}   PSNR (dB)   L1 (%)   L2 (%)   over the hole"]
  for name, means in results.items():
    lines.append(
      f"{name:{width}}   {means['psnr_hole']:9.2f}   {100 * means['l1_hole']:6.2f}"
      f"   {100 * means['l2_hole']:6.2f}"
    )
  return "\n".join(lines)


class _Mean:
  """Weighted means in float64, so that the order of batches does not show."""

  def __init__(self):
    self._sums: dict[str, float] = {}
    self._weight = 0.0

  def add(self, measured: Mapping[str, jax.Array], weight: np.ndarray) -> None:
    for name, values in measured.items():
      values = np.where(weight > 0, np.asarray(values, np.float64), 0)
      self._sums[name] = self._sums.get(name, 0.0) + float(values @ weight)
    self._weight += float(weight.sum())

  def means(self) -> Means:
    """Returns the means over what all processes have added."""
    sums = distributed.sum_over_processes([*self._sums.values(), self._weight])
    return {
      name: value / sums[-1] for name, value in zip(self._sums, sums, strict=False)
    }


def _batches(examples: data.Examples, batch_size: int):
  """Returns this process's share of the batches; all processes get equally many."""
  count = jax.process_count()
  return data.validation_batches(
    examples,
    batch_size=-(-batch_size // count) * count,
    process_index=jax.process_index(),
    process_count=count,
  )


def _inputs(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {"image": batch["image"], "index": batch["index"]}
