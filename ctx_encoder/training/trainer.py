"""Training a run: where configuration, images, step and checkpoints meet."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ctx_encoder import config as configuration
from ctx_encoder import data, distributed, xla
from ctx_encoder.config import Config
from ctx_encoder.evaluation import compare
from ctx_encoder.models import precision
from ctx_encoder.training import assembly, feed, initial
from ctx_encoder.training.checkpoint import Checkpoints, DamagedError
from ctx_encoder.training.eval_step import make_eval_step
from ctx_encoder.training.history import History
from ctx_encoder.training.loop import Loop, NonFiniteError, Say, first_process
from ctx_encoder.training.process import Interruption, Watchdog, claimed
from ctx_encoder.training.setup import Optimizers, Run
from ctx_encoder.training.state import (
  PyTree,
  TrainState,
  inference_variables,
  with_params,
)
from ctx_encoder.training.step import make_train_step

__all__ = ["NonFiniteError", "Outcome", "fit", "train"]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a run ended.

  step, total_steps: steps so far, and of the complete run.
  reason: "finished", "stopped early" or "interrupted".
  results: {system: metrics} on the validation images, unless it was interrupted.
  """

  step: int
  total_steps: int
  reason: str
  results: dict[str, compare.Means]


class Start(NamedTuple):
  """What a run reads at its start besides images.

  params: the generator's initial parameters, see `initial.params`.
  validate: `compare.validate`, or with the metrics of a feature network.
  """

  params: dict[str, PyTree]
  validate: Callable[..., dict[str, compare.Means]]


class Place(NamedTuple):
  """Where a run is written, and who hears of it."""

  workdir: Path
  checkpoints: Checkpoints
  say: Say
  started: float

  @property
  def resumed(self) -> bool:
    return self.checkpoints.latest() is not None

  def say_resumed(self, step: int, total_steps: int) -> None:
    """Names the step that a resumed run continues from."""
    if self.resumed:
      self.say(f"Resuming at step {step} of {total_steps} from {self.workdir}.")

  def last_checkpoint(self) -> str:
    """Returns a sentence for the user."""
    step = self.checkpoints.latest()
    if step is None:
      return "There is no checkpoint yet."
    return f"The same command resumes from step {step} in {self.workdir}."


def train(config: Config, workdir: str | Path, *, say: Say = print) -> Outcome:
  """Trains the run that a configuration describes, from its last checkpoint if any.

  Args:
    config: see `ctx_encoder.config`.
    workdir: folder of the run: checkpoints, metrics.jsonl, curves.png, images/,
      results.json.
    say: takes lines for the user.

  Raises:
    ValueError: the configuration or the data is invalid, or the work directory belongs
      to another configuration.
    FileNotFoundError: the data does not exist.
    OSError: the work directory cannot be written to, or another run uses it.
    NonFiniteError: a loss or a parameter became infinite or NaN.
  """
  with _opened(config, workdir, say) as place:
    run = assembly.run(config)
    start = _start(run, place)
    images = feed.load_images(config, place.say)
    feed.on_device(config, images.train)  # refuses a placement that cannot be
    return _train(run, start, images, place)


def fit(
  run: Run, images: data.Data, workdir: str | Path, *, say: Say = print
) -> Outcome:
  """Trains a run, whatever its networks, from its last checkpoint if any.

  Args:
    run: from `training.run`, perhaps with parts replaced.
    images: training and validation images, from `data.load` or `data.from_arrays`.
    workdir, say: as for `train`.

  Raises:
    As `train`.
  """
  with _opened(run.config, workdir, say) as place:
    data.check_batch_size(len(images.train), run.config.batch_size)
    feed.on_device(run.config, images.train)
    return _train(run, _start(run, place), images, place)


@contextlib.contextmanager
def _opened(config: Config, workdir: str | Path, say: Say) -> Iterator[Place]:
  """Claims a work directory, and checks that the configuration can be trained in it."""
  started = time.time()
  configuration.validate(config)
  folder = Path(workdir).absolute()
  first = first_process()  # which writes and reports for all processes
  with contextlib.ExitStack() as stack:
    if first:
      stack.enter_context(claimed(folder))
    metric, higher_is_better = config.eval.best_metric()
    checkpoints = Checkpoints(
      folder / "checkpoints",
      keep=config.checkpoint.keep,
      best_metric=metric,
      higher_is_better=higher_is_better,
    )
    place = Place(folder, checkpoints, say if first else lambda text: None, started)
    if place.resumed:
      saved = configuration.from_saved(checkpoints.read_config())
      configuration.check_resume(saved, config)
    mesh = distributed.data_mesh()
    distributed.check_batch_size(mesh, config.batch_size, config.accumulate)
    if notice := precision.notice(config.model.dtype, distributed.platform(mesh)):
      place.say(notice)
    yield place


def _start(run: Run, place: Place) -> Start:
  """Reads what a run needs besides images, before anything expensive."""
  params = {} if place.resumed else initial.params(run)
  return Start(params, assembly.validation(run.config))


def _train(run: Run, start: Start, images: data.Data, place: Place) -> Outcome:
  config, checkpoints = run.config, place.checkpoints
  epoch_steps = len(images.train) // config.batch_size
  total_steps = config.num_steps or config.num_epochs * epoch_steps
  run, extra = _with_mean_color(run, images, place)
  optimizers = run.optimizers(run.generator, total_steps)
  mesh = distributed.data_mesh()
  state, restore = _initial_state(run, start.params, optimizers, mesh, place)
  step = int(state.step)
  place.say_resumed(step, total_steps)
  with contextlib.ExitStack() as stack:
    interruption = stack.enter_context(Interruption())  # first: the others may block
    stack.enter_context(checkpoints)
    history = stack.enter_context(
      contextlib.closing(History(place.workdir, up_to_step=step, write=first_process()))
    )
    watchdog = stack.enter_context(
      Watchdog(config.watchdog_minutes, place.last_checkpoint)
    )
    dispatches = stack.enter_context(
      contextlib.closing(
        feed.dispatches(
          config,
          make_train_step(run, optimizers, mesh=mesh),
          images.train,
          _replicated_key(config.seed, mesh),
          mesh,
          state_sharding=jax.tree.map(lambda x: x.sharding, state),
          start=step,
          stop=total_steps,
        )
      )
    )
    loop = Loop(
      config=config,
      workdir=place.workdir,
      validation=images.validation,
      checkpoints=checkpoints,
      history=history,
      eval_step=watchdog.unwatched(
        jax.jit(make_eval_step(run), compiler_options=xla.options()), "validating"
      ),
      inference_variables=lambda state: distributed.local(
        mesh, inference_variables(run.generator, state)
      ),
      key=jax.random.key(config.seed),
      saved={"config": configuration.to_dict(config), "extra": extra},
      total_steps=total_steps,
      epoch_steps=epoch_steps,
      started=place.started,
      watchdog=watchdog,
      say=place.say,
      measure=start.validate,
    )
    bad = len(images.summary.skipped)
    state, reason = loop.run(state, dispatches, interruption)
    watchdog.pause()
    if len(images.summary.skipped) > bad:
      place.say(images.summary.skipped_line())
    return _ended(loop, state, reason, restore)


def _initial_state(
  run: Run, params: dict[str, PyTree], optimizers: Optimizers, mesh: Mesh, place: Place
):
  """Returns the state to start from, and the function (step) -> saved state."""
  config, checkpoints = run.config, place.checkpoints

  def init() -> TrainState:
    return run.init(jax.random.key(config.seed), optimizers)

  abstract = jax.eval_shape(init)
  sharding = distributed.of_state(mesh, abstract, config.sharding)
  placed = jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    abstract,
    sharding,
  )

  def restore(step: int | None = None) -> TrainState:
    return checkpoints.restore(placed, step)[0]

  if place.resumed:
    return restore(), restore
  create = jax.jit(init, out_shardings=sharding, compiler_options=xla.RUNS_ONCE)
  return with_params(create(), params), restore


def _ended(loop: Loop, state: TrainState, reason: str, restore: Any) -> Outcome:
  """Reports how a run ended, and evaluates its best state."""
  step, total, checkpoints = int(state.step), loop.total_steps, loop.checkpoints
  if loop.skips.total:
    loop.say(f"Steps skipped because of infinite or NaN values: {loop.skips.total}.")
  if reason == "interrupted":
    loop.save(state)
    checkpoints.wait()
    loop.say(
      f"Stopped at step {step} of {total} and saved in {loop.workdir}."
      " The same command resumes it."
    )
    return Outcome(step, total, reason, {})
  checkpoints.wait()
  best, at_best = checkpoints.best(), state
  if best not in (None, step):
    try:
      at_best = restore(best)
    except DamagedError as error:
      loop.say(f"{error} The last step is evaluated instead.")
  return Outcome(step, total, reason, loop.finish(at_best))


def _with_mean_color(
  run: Run, images: data.Data, place: Place
) -> tuple[Run, dict[str, Any]]:
  """Returns the run with the images' mean colour, and what is saved of it.

  A resumed run keeps its mean colour even if the images have changed.
  """
  if place.resumed:
    extra = place.checkpoints.read_extra()
  elif run.config.masks.fill == "mean":
    extra = {"mean_color": images.train.mean_color()}
  else:
    extra = {"mean_color": list(assembly.GREY)}  # without decoding images
  if run.config.masks.fill == "mean":
    view = assembly.view(run.config, extra["mean_color"])
    objective = dataclasses.replace(run.objective, view=view)
    run = dataclasses.replace(run, objective=objective)
  return run, extra


def _replicated_key(seed: int, mesh: Mesh) -> jax.Array:
  create = functools.partial(jax.random.key, seed)
  return jax.jit(create, out_shardings=distributed.replicated(mesh))()
