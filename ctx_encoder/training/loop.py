"""The training loop: steps, the log, validations, pictures and checkpoints."""

import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ctx_encoder import data, distributed
from ctx_encoder.config import Config
from ctx_encoder.data import files
from ctx_encoder.evaluation import baselines, compare, figures, table
from ctx_encoder.training import feed
from ctx_encoder.training.checkpoint import Checkpoints
from ctx_encoder.training.history import History
from ctx_encoder.training.process import Interruption, Watchdog
from ctx_encoder.training.state import TrainState, magnitudes

Say = Callable[[str], None]

_magnitudes = jax.jit(magnitudes)
_SKIPS_IN_A_ROW = 100
# Metrics in the table at the end.
_SHOWN = ("psnr_hole", "l1_hole", "l2_hole", "lpips", "kid")
_STEPS_BETWEEN_STOP_CHECKS = 10  # of several processes


def first_process() -> bool:
  """Returns whether this process writes and reports for all."""
  return jax.process_index() == 0


class NonFiniteError(RuntimeError):
  """A loss or a parameter became infinite or not a number."""


@dataclasses.dataclass
class Skips:
  """Counts the steps that `step.skip_nonfinite` has skipped since the start.

  total: number of skipped steps.
  in_a_row: number of skipped steps since the last one that was not.
  """

  total: int = 0
  in_a_row: int = 0

  def count(self, measured: dict[str, float]) -> bool:
    """Removes "skipped" from a step's metrics; returns whether it was skipped.

    Raises:
      NonFiniteError: one hundred steps in a row were skipped.
    """
    if not measured.pop("skipped", 0):
      self.in_a_row = 0
      return False
    self.total += 1
    self.in_a_row += 1
    if self.in_a_row == _SKIPS_IN_A_ROW:
      raise NonFiniteError(
        f"{self.in_a_row} steps in a row were skipped: their losses or parameters were"
        " not finite. A lower optimizer.learning_rate often helps."
      )
    return True


@dataclasses.dataclass(frozen=True)
class Loop:
  """Trains, logs, validates and saves.

  Attributes:
    config, workdir: of the run.
    validation: validation images.
    checkpoints, history: where the state and the metrics are written.
    eval_step: jitted, see `make_eval_step`.
    inference_variables: the state to the generator's variables for inference.
    key: PRNG key of the validation's holes.
    saved: "config" and "extra" of every checkpoint.
    total_steps, epoch_steps: steps of the run and of an epoch.
    started: time of the start, seconds since 1970.
    watchdog: hears of every step.
    say: takes lines for the user.
    skips: counts skipped steps.
    measure: `compare.validate`, or with more metrics.
  """

  config: Config
  workdir: Path
  validation: data.Examples
  checkpoints: Checkpoints
  history: History
  eval_step: compare.EvalStep
  inference_variables: Callable[[TrainState], Any]
  key: jax.Array
  saved: dict[str, Any]
  total_steps: int
  epoch_steps: int
  started: float
  watchdog: Watchdog
  say: Say
  skips: Skips = dataclasses.field(default_factory=Skips)
  measure: Callable[..., dict[str, compare.Means]] = compare.validate

  def run(
    self,
    state: TrainState,
    dispatches: Iterator[tuple[int, feed.Dispatch]],
    interruption: Interruption,
  ) -> tuple[TrainState, str]:
    """Trains to the last step, an interruption or early stopping.

    The metrics of a dispatch are logged while the next one runs.

    Args:
      state: to start from.
      dispatches: see `feed.dispatches`.
      interruption: whether the process got a stop signal.

    Returns:
      The last state, and "finished", "stopped early" or "interrupted".
    """
    step = int(state.step)
    eval_steps = self.epoch_steps * self.config.eval.every_epochs
    save_steps = self.config.checkpoint.every_steps
    first = step
    pending: dict[int, Any] = {}
    if step >= self.total_steps:
      return state, "finished"
    if self.stops_early():
      return state, "stopped early"
    before, began = self.history.seconds(), time.time()
    with self.progress_bar(step) as bar:

      def log_pending() -> None:
        for end, measured in pending.items():
          self.log(end, measured, before + time.time() - began, bar)
        pending.clear()

      self.watchdog.progress("reading images")
      for end, dispatch in dispatches:
        state, measured = self.watchdog.unwatched(dispatch, "computing a step")(state)
        log_pending()
        pending[end] = measured
        if step == first:
          self.watchdog.unwatched(log_pending, "logging")()
          self.show(bar, f"First step after {time.time() - self.started:.1f} s.")
        if end % eval_steps == 0 or end >= self.total_steps:
          log_pending()
          metrics = self.validate(state, end, before + time.time() - began)
          self.show(bar, self.validation_line(metrics, end))
          if end >= self.total_steps:
            return state, "finished"
          if self.stops_early():
            return state, "stopped early"
        elif save_steps and end // save_steps > step // save_steps:
          log_pending()
          self.save(state)
        if self.stop_requested(interruption, step, end):
          log_pending()
          return state, "interrupted"
        self.watchdog.progress("reading images")
        step = end
    raise AssertionError("The batches ended before the run.")

  def stop_requested(self, interruption: Interruption, before: int, now: int) -> bool:
    """Returns whether any process got a stop signal; asks every few steps."""
    every = 1 if jax.process_count() == 1 else _STEPS_BETWEEN_STOP_CHECKS
    if now // every == before // every:
      return False
    return distributed.any_process(interruption.requested)

  def log(self, end: int, measured: Any, seconds: float, bar: tqdm) -> None:
    """Writes the metrics of the steps up to `end`; raises if they are not finite."""
    table = {name: np.asarray(values, float) for name, values in measured.items()}
    lines = [
      dict(zip(table, map(float, values), strict=True))
      for values in zip(*table.values(), strict=True)
    ]
    for step, line in enumerate(lines, end - len(lines) + 1):
      if self.skips.count(line):
        self.history.append(self.position(step, seconds) | {"skipped": 1})
        continue
      self.check_finite(line, step)
      if step % self.config.log.every_steps == 0 or step == 1:
        self.history.append(self.position(step, seconds) | line)
    shown = _postfix(lines[-1], end / self.epoch_steps)
    if self.skips.total:
      shown += f", skipped {self.skips.total}"
    bar.set_postfix_str(shown, refresh=False)
    bar.update(len(lines) * self.config.batch_size)

  def validate(self, state: TrainState, step: int, seconds: float) -> dict[str, float]:
    """Evaluates, draws examples and saves; returns the metrics."""
    metrics = {}
    if len(self.validation):
      variables, size = self.inference_variables(state), self.eval_batch_size
      means = self.measure(
        self.eval_step, variables, self.validation, self.key, batch_size=size
      )
      metrics = {f"eval/{k}": value for k, value in means[compare.MODEL].items()}
      if first_process():
        self.draw_examples(variables, step)
    skipped = len(self.validation.skipped)  # of both splits
    counted = {"skipped_images": skipped} if skipped else {}
    self.history.append(self.position(step, seconds) | metrics | counted)
    self.draw_curves()
    self.save(state, metrics)
    return metrics

  def finish(self, state: TrainState) -> dict[str, compare.Means]:
    """Compares the best state with the baselines; writes and reports the table."""
    step = int(state.step)
    if not len(self.validation):
      self.say(f"Done at step {step}; there are no validation images.")
      return {}
    usable, missing = baselines.default()
    results = self.measure(
      self.eval_step,
      self.inference_variables(state),
      self.validation,
      self.key,
      batch_size=self.eval_batch_size,
      baselines={one.printed: compare.of_baseline(one.complete) for one in usable},
    )
    names = [name for name in results if name != compare.MODEL]
    self.draw_curves({name: results[name]["psnr_hole"] for name in names})
    written = {"step": step, "images": len(self.validation), "results": results}
    if first_process():
      path = self.workdir / "results.json"
      files.write(path, json.dumps(written, indent=1) + "\n")
    lines = [
      f"On {len(self.validation)} validation images, the best step being {step}:",
      table_of(results),
      *missing,
      f"Pictures, curves, metrics and checkpoints are in {self.workdir}.",
    ]
    self.say("\n".join(lines))
    return results

  def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
    """Saves the state; raises NonFiniteError where a value is infinite or NaN."""
    self.watchdog.progress("saving")
    # A step's loss is that of the parameters before it; these are those after it.
    self.check_finite(_magnitudes(state), int(state.step))
    self.history.sync()  # a resumed run needs the lines up to its checkpoint
    self.checkpoints.save(int(state.step), state, metrics=metrics, **self.saved)

  def draw_examples(self, variables: Any, step: int) -> None:
    rows = compare.show(
      self.eval_step,
      variables,
      self.validation,
      self.key,
      count=self.config.eval.grid_images,
      batch_size=self.eval_batch_size,
    )
    pictures = self.workdir / "images"
    pictures.mkdir(exist_ok=True)
    figures.save_png(
      pictures / f"step_{step:07d}.png",
      figures.grid(
        rows,
        column_labels=("original", "masked", "completed"),
        scale=max(1, 128 // len(rows[0][0])),  # 64 pixels are small on a screen
      ),
    )

  def draw_curves(self, references: dict[str, float] | None = None) -> None:
    if not first_process():
      return
    figures.curves(
      self.workdir / "curves.png",
      self.history.lines,
      title=self.config.name,
      references=references,
    )

  @property
  def eval_batch_size(self) -> int:
    return self.config.eval.batch_size or self.config.batch_size

  def position(self, step: int, seconds: float) -> dict[str, Any]:
    """Returns the first fields of every line in metrics.jsonl."""
    return {
      "step": step,
      "epoch": step / self.epoch_steps,
      "images": step * self.config.batch_size,
      "seconds": seconds,
    }

  def stops_early(self) -> bool:
    patience = self.config.early_stopping.patience
    name, higher_is_better = self.config.eval.best_metric()
    scores = [line[name] for line in self.history.validations() if name in line]
    best = (np.argmax if higher_is_better else np.argmin)(scores) if scores else 0
    return 0 < patience < len(scores) - int(best)

  def check_finite(self, values: Mapping[str, Any], step: int) -> None:
    bad = [f"{name} is {x}" for name, x in values.items() if not math.isfinite(x)]
    if not bad:
      return
    self.checkpoints.wait()
    saved = self.checkpoints.latest()
    last = f"The last checkpoint, step {saved} in {self.workdir}, is good."
    raise NonFiniteError(
      f"At step {step} {', '.join(bad)}."
      f" {'There is no checkpoint yet.' if saved is None else last}"
      " A lower optimizer.learning_rate often helps."
    )

  def show(self, bar: tqdm, text: str) -> None:
    """Writes a line above the progress bar."""
    if first_process():
      bar.write(text, sys.stderr)

  def progress_bar(self, step: int) -> tqdm:
    size = self.config.batch_size
    return tqdm(
      total=self.total_steps * size,
      initial=step * size,
      unit="img",
      unit_scale=True,
      dynamic_ncols=True,
      disable=not first_process(),
      mininterval=0.2 if sys.stderr.isatty() else 30,
    )

  def validation_line(self, metrics: dict[str, float], step: int) -> str:
    where = f"Epoch {step / self.epoch_steps:.1f}, step {step}"
    if not metrics:
      return f"{where}: saved."
    return (
      f"{where}: validation PSNR {metrics['eval/psnr_hole']:.2f} dB,"
      f" L1 {100 * metrics['eval/l1_hole']:.2f} %,"
      f" L2 {100 * metrics['eval/l2_hole']:.2f} % over the hole."
    )


def table_of(results: Mapping[str, compare.Means]) -> str:
  """Returns the table that a run ends with."""
  return table.Table.of(results, _SHOWN).text()


def _postfix(line: dict[str, float], epoch: float) -> str:
  shown = {"rec": "loss/reconstruction", "adv": "loss/adversarial"}
  shown |= {"disc": "loss/discriminator", "psnr": "psnr_hole"}
  values = [f"{name} {line[key]:.3f}" for name, key in shown.items() if key in line]
  return ", ".join([f"epoch {epoch:.1f}", *values])
