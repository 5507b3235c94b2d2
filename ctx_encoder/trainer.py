"""The training loop: the one place where data, step, checkpoints and pictures meet."""

import contextlib
import dataclasses
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ctx_encoder import build, data, evaluate, figures, sharding
from ctx_encoder import config as configuration
from ctx_encoder.checkpoint import Checkpoints, check_config
from ctx_encoder.history import History
from ctx_encoder.state import TrainState
from ctx_encoder.step import make_dispatch, make_eval_step

# What data sets may take of a device's memory before they are fed from the host.
_DEVICE_SHARE = 0.25
_DEVICE_BYTES = 4 * 2**30  # where the device does not tell its memory


class NonFiniteError(RuntimeError):
  """A loss became infinite or not a number."""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a run ended.

  step: steps made. total_steps: steps asked for.
  reason: "finished", "stopped early" or "interrupted".
  results: {system: metrics} on the validation set, for a run that has ended.
  """

  step: int
  total_steps: int
  reason: str
  results: dict[str, dict[str, float]]


def train(
  config: ConfigDict, workdir: Path, *, say: Callable[[str], None] = print
) -> Outcome:
  """Trains what a configuration describes, from where its work directory stands.

  Args:
    config: see `ctx_encoder.config`.
    workdir: folder of the run: checkpoints, metrics.jsonl, pictures, results.json.
    say: takes lines for the user.
  Raises:
    ValueError: the configuration or the data is not usable, or the work directory
      belongs to another configuration.
    FileNotFoundError: there is no such data.
    NonFiniteError: a loss became infinite or not a number.
  """
  configuration.validate(config)
  started = time.time()
  workdir = Path(workdir).absolute()
  checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep)
  as_json = json.loads(config.to_json_best_effort())
  if checkpoints.latest() is not None:
    check_config(checkpoints.read_config(), as_json)
  mesh = sharding.data_mesh()
  sharding.check_batch_size(mesh, config.batch_size)
  images = _load(config, say)
  total_steps, epoch_steps = _lengths(config, len(images.train))
  workdir.mkdir(parents=True, exist_ok=True)

  shapes = _silhouettes(config)
  mean_color = _mean_color(images.train)
  run = build.run(config, total_steps=total_steps, mean_color=mean_color, shapes=shapes)
  create = jax.jit(
    lambda: run.init(config.seed, average=config.ema_decay > 0),
    out_shardings=sharding.replicated(mesh),
  )
  if checkpoints.latest() is None:
    state = create()
  else:
    state, _ = checkpoints.restore(_abstract(create, mesh))
    say(f"Resuming at step {int(state.step)} of {total_steps} from {workdir}.")

  with (
    checkpoints,
    contextlib.closing(History(workdir, up_to_step=int(state.step))) as history,
    _Interruption() as interruption,
  ):
    loop = _Loop(
      config=config,
      workdir=workdir,
      run=run,
      images=images,
      checkpoints=checkpoints,
      history=history,
      eval_step=jax.jit(make_eval_step(run.generator, run.task)),
      key=jax.random.key(config.seed),
      saved={
        "config": as_json,
        "extra": {"seed": config.seed, "mean_color": mean_color.tolist()},
      },
      total_steps=total_steps,
      epoch_steps=epoch_steps,
      say=say,
    )
    with contextlib.closing(_dispatches(loop, mesh, int(state.step))) as dispatches:
      state, reason = _run(loop, state, dispatches, interruption, started)
    if reason == "interrupted":
      loop.save(state)
      checkpoints.wait()
      say(
        f"Stopped at step {int(state.step)} of {total_steps} and saved. The same"
        f" command goes on from there; the work directory is {workdir}."
      )
      return Outcome(int(state.step), total_steps, reason, {})
    results = _finish(loop, state, create, mesh)
  return Outcome(int(state.step), total_steps, reason, results)


@dataclasses.dataclass(frozen=True)
class _Loop:
  """What does not change while a run goes on."""

  config: ConfigDict
  workdir: Path
  run: build.Run
  images: data.Data
  checkpoints: Checkpoints
  history: History
  eval_step: evaluate.EvalStep
  key: jax.Array
  saved: dict[str, Any]
  total_steps: int
  epoch_steps: int
  say: Callable[[str], None]

  @property
  def eval_batch_size(self) -> int:
    return self.config.eval.batch_size or self.config.batch_size

  def save(self, state: TrainState, metrics: dict[str, float] | None = None) -> None:
    self.checkpoints.save(int(state.step), state, metrics=metrics, **self.saved)

  def validate(self, state: TrainState, seconds: float) -> dict[str, float]:
    """Measures, draws and saves; returns the validation's metrics."""
    step, images = int(state.step), self.images.validation
    line = {"step": step, **self.position(step), "seconds": round(seconds, 2)}
    metrics = {}
    if len(images):
      variables, key = state.inference_variables, self.key
      means = evaluate.evaluate(
        self.eval_step, variables, images, key, batch_size=self.eval_batch_size
      )
      metrics = {f"eval/{name}": value for name, value in means.items()}
      rows = evaluate.show(
        self.eval_step,
        variables,
        images,
        key,
        count=self.config.eval.grid_images,
        batch_size=self.eval_batch_size,
      )
      labels = ("original", "masked", "completed")
      picture = figures.grid(rows, column_labels=labels)
      (self.workdir / "images").mkdir(exist_ok=True)
      figures.save_png(self.workdir / "images" / f"step_{step:07d}.png", picture)
    self.history.append(line | metrics)
    figures.curves(
      self.workdir / "curves.png", self.history.lines, title=self.config.name
    )
    self.save(state, metrics)
    return metrics

  def position(self, step: int) -> dict[str, float]:
    return {
      "epoch": round(step / self.epoch_steps, 4),
      "images": step * self.config.batch_size,
    }

  def patience_is_over(self) -> bool:
    patience = self.config.early_stopping.patience
    scores = [line["eval/psnr_hole"] for line in self.history.validations()]
    return (
      bool(patience) and len(scores) - 1 - int(np.argmax(scores or [0])) >= patience
    )


Dispatch = Callable[[TrainState], tuple[TrainState, dict[str, jax.Array]]]


def _run(
  loop: _Loop,
  state: TrainState,
  dispatches: Iterator[tuple[int, Dispatch]],
  interruption: "_Interruption",
  started: float,
) -> tuple[TrainState, str]:
  """Makes steps until the end, an interruption or the end of patience."""
  config, history = loop.config, loop.history
  step = int(state.step)
  seconds, began = history.seconds(), time.time()
  every = config.checkpoint.every_steps
  eval_steps = loop.epoch_steps * config.eval.every_epochs
  pending: tuple[int, dict[str, jax.Array]] | None = None
  first = True

  def elapsed() -> float:
    return seconds + time.time() - began

  def settle() -> None:
    """Waits for the last dispatch and logs it; one stays in flight meanwhile."""
    nonlocal pending
    if pending is None:
      return
    last, measured = pending
    pending = None
    count = len(next(iter(measured.values())))
    measured = {name: np.asarray(value) for name, value in measured.items()}
    for i in range(count):
      at = last - count + i + 1
      values = {name: float(value[i]) for name, value in measured.items()}
      _check_finite(values, at, loop)
      if at % config.log.every_steps == 0 or at == 1:
        line = {"step": at, **loop.position(at), "seconds": round(elapsed(), 2)}
        history.append(line | values)
    bar.set_postfix_str(_postfix(values, last / loop.epoch_steps))
    bar.update(count * config.batch_size)

  with _progress_bar(loop, step) as bar:
    if step >= loop.total_steps:
      return state, "finished"
    for end, dispatch in dispatches:
      state, measured = dispatch(state)
      settle()
      pending = (end, measured)
      if first:
        jax.block_until_ready(measured)
        bar.write(f"First step after {time.time() - started:.1f} s.", file=sys.stderr)
        seconds, began, first = seconds, time.time(), False
      done = end >= loop.total_steps
      if done or end % eval_steps == 0:
        settle()
        metrics = loop.validate(state, elapsed())
        bar.write(_validation_line(metrics, end, loop), file=sys.stderr)
        if done:
          return state, "finished"
        if loop.patience_is_over():
          return state, "stopped early"
      elif every and end // every != (end - len(measured["loss/total"])) // every:
        settle()
        loop.save(state)
      if interruption.requested:
        settle()
        return state, "interrupted"
  raise AssertionError("The batches ended before the run.")


def _dispatches(
  loop: _Loop, mesh: jax.sharding.Mesh, step: int
) -> Iterator[tuple[int, Dispatch]]:
  """Yields (step reached, function that makes the steps up to there)."""
  config, train = loop.config, loop.images.train
  whole, shared = sharding.replicated(mesh), sharding.split(mesh)
  if _on_device(config, train):
    per_call = config.steps_per_dispatch or (1 if jax.default_backend() == "cpu" else 8)
    compiled = jax.jit(make_dispatch(loop.run.train_step), donate_argnums=0)
    images = sharding.put(train.images, whole)
    ids = sharding.put(train.ids, whole)
    rows_shared = sharding.split(mesh, 1)
    while step < loop.total_steps:
      # Calls do not cross epochs, so that a run that is resumed makes the same calls.
      end = min(
        step - step % loop.epoch_steps + loop.epoch_steps,
        loop.total_steps,
        step + per_call,
      )
      if end - step < per_call:
        end = step + 1  # what is left over goes one by one: no second long compilation
      rows = np.stack(
        [
          data.batch_indices(len(train), config.batch_size, config.seed, at)
          for at in range(step, end)
        ]
      )
      rows = sharding.put(rows, rows_shared)
      yield end, lambda state, rows=rows: compiled(state, images, ids, rows, loop.key)
      step = end
  else:
    compiled = jax.jit(loop.run.train_step, donate_argnums=0)
    with contextlib.closing(
      data.train_batches(
        train,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=step,
        loader=config.data.loader,
      )
    ) as batches:
      while step < loop.total_steps:
        batch = sharding.put(next(batches), shared)
        step += 1

        def dispatch(state, batch=batch):
          state, measured = compiled(state, batch, loop.key)
          return state, {name: value[None] for name, value in measured.items()}

        yield step, dispatch


def _finish(
  loop: _Loop, state: TrainState, create, mesh
) -> dict[str, dict[str, float]]:
  """Compares the best state with the baselines; writes and prints the table."""
  images = loop.images.validation
  if not len(images):
    loop.checkpoints.wait()
    loop.say(f"Done: step {int(state.step)}. There were no validation images.")
    return {}
  loop.checkpoints.wait()
  best = loop.checkpoints.best()
  if best is not None and best != int(state.step):
    state, _ = loop.checkpoints.restore(_abstract(create, mesh), best)
  results = evaluate.compare(
    loop.eval_step,
    state.inference_variables,
    images,
    loop.key,
    batch_size=loop.eval_batch_size,
  )
  figures.curves(
    loop.workdir / "curves.png",
    loop.history.lines,
    title=loop.config.name,
    references={
      name: means["psnr_hole"]
      for name, means in results.items()
      if name != "this model"
    },
  )
  written = {"step": int(state.step), "images": len(images), "results": results}
  (loop.workdir / "results.json").write_text(json.dumps(written, indent=1))
  loop.say(
    f"{len(images)} validation images, best step {int(state.step)}:\n"
    f"{evaluate.table(results)}\nPictures, curves and metrics are in {loop.workdir}."
  )
  return results


def _load(config: ConfigDict, say: Callable[[str], None]) -> data.Data:
  options = config.data
  images = data.load(
    source=options.source,
    path=options.path,
    split=options.split,
    data_dir=options.data_dir,
    download=options.download,
    image_size=options.load_size or options.image_size,
    validation_fraction=options.validation_fraction,
    max_images=options.max_images,
    max_pixels=options.max_pixels,
    cache=options.cache,
    loader=options.loader,
  )
  for line in (images.summary.notice, images.summary.skipped_line()):
    if line:
      say(line)
  say(
    f"{len(images.train)} training and {len(images.validation)} validation images"
    f" from {images.summary.path or images.summary.source}."
  )
  data.batch_indices(len(images.train), config.batch_size, config.seed, 0)
  return images


def _silhouettes(config: ConfigDict) -> np.ndarray | None:
  masks = config.masks
  if masks.region != "shapes" or not masks.path:
    return None
  from ctx_encoder.data.silhouettes import load_silhouettes

  return load_silhouettes(masks.path, config.data.image_size, masks.inverted)


def _mean_color(examples: data.Examples, most: int = 500) -> np.ndarray:
  """Returns the mean colour of the training images, `[3]` in [0, 255]."""
  positions = np.unique(np.linspace(0, len(examples) - 1, most).astype(int))
  return examples.gather(positions).mean(axis=(0, 1, 2), dtype=np.float64)


def _lengths(config: ConfigDict, images: int) -> tuple[int, int]:
  epoch_steps = images // config.batch_size
  return config.num_steps or config.num_epochs * epoch_steps, epoch_steps


def _on_device(config: ConfigDict, examples: data.Examples) -> bool:
  placement = config.data.placement
  if placement == "host" or examples.images is None:
    if placement == "device":
      raise ValueError(
        "data.placement=device needs the images in memory: set data.cache=memory."
      )
    return False
  stats = jax.local_devices()[0].memory_stats() or {}
  room = stats.get("bytes_limit", _DEVICE_BYTES / _DEVICE_SHARE) * _DEVICE_SHARE
  return placement == "device" or examples.nbytes <= room


def _abstract(create: Callable[[], TrainState], mesh: jax.sharding.Mesh) -> TrainState:
  whole = sharding.replicated(mesh)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole),
    jax.eval_shape(create),
  )


def _check_finite(values: dict[str, float], step: int, loop: _Loop) -> None:
  bad = sorted(name for name, value in values.items() if not math.isfinite(value))
  if bad:
    saved = loop.checkpoints.latest()
    kept = "there is none" if saved is None else f"step {saved} in {loop.workdir}"
    raise NonFiniteError(
      f"Step {step}: {', '.join(f'{name} is {values[name]}' for name in bad)}."
      f" The last good checkpoint: {kept}. A lower optimizer.learning_rate often helps."
    )


def _progress_bar(loop: _Loop, step: int):
  from tqdm import tqdm

  size = loop.config.batch_size
  return tqdm(
    total=loop.total_steps * size,
    initial=step * size,
    unit="img",
    unit_scale=True,
    dynamic_ncols=True,
    smoothing=0.1,
    mininterval=0.2 if sys.stderr.isatty() else 30,
  )


def _postfix(values: dict[str, float], epoch: float) -> str:
  shown = [f"epoch {epoch:.1f}", f"rec {values['loss/reconstruction']:.4f}"]
  if "loss/adversarial" in values:
    shown += [
      f"adv {values['loss/adversarial']:.2f}",
      f"disc {values['loss/discriminator']:.2f}",
    ]
  return ", ".join([*shown, f"psnr {values['psnr_hole']:.2f}"])


def _validation_line(metrics: dict[str, float], step: int, loop: _Loop) -> str:
  epoch = step / loop.epoch_steps
  if not metrics:
    return f"Epoch {epoch:.1f}, step {step}: saved."
  return (
    f"Epoch {epoch:.1f}, step {step}: validation PSNR {metrics['eval/psnr_hole']:.2f}"
    f" dB, L1 {100 * metrics['eval/l1_hole']:.2f} %,"
    f" L2 {100 * metrics['eval/l2_hole']:.2f} % over the hole."
  )


class _Interruption:
  """Notes SIGINT and SIGTERM, so that the loop can save; a second SIGINT ends at once."""

  _SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self.requested = False
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "_Interruption":
    with contextlib.suppress(ValueError):  # not in the main thread: no handlers
      for number in self._SIGNALS:
        self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: Any) -> None:
    if self.requested and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.requested = True
    print("\nSaving, then stopping ...", file=sys.stderr)
