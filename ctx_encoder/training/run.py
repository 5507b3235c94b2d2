"""Training: the one place where a configuration, data, step and checkpoints meet."""

import contextlib
import dataclasses
import json
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ctx_encoder import distributed, xla
from ctx_encoder.config import schema as configuration
from ctx_encoder.evaluation import compare
from ctx_encoder.training import assembly as build
from ctx_encoder.training import feed, inputs
from ctx_encoder.training.checkpoint import Checkpoints, DamagedError, check_config
from ctx_encoder.training.history import History
from ctx_encoder.training.loop import Loop, NonFiniteError, Say, first_process
from ctx_encoder.training.process import Interruption, claimed
from ctx_encoder.training.state import TrainState, inference_variables, with_encoder
from ctx_encoder.training.step import make_eval_step

__all__ = ["NonFiniteError", "Outcome", "train"]


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a run ended.

  step, total_steps: steps made and asked for.
  reason: "finished", "stopped early" or "interrupted".
  results: {system: metrics} on the validation images, unless it was interrupted.
  """

  step: int
  total_steps: int
  reason: str
  results: dict[str, compare.Means]


def train(config: ConfigDict, workdir: str | Path, *, say: Say = print) -> Outcome:
  """Trains what a configuration describes, from where its work directory stands.

  Args:
    config: see `ctx_encoder.config.schema`.
    workdir: folder of the run: checkpoints, metrics.jsonl, curves.png, images/,
      results.json.
    say: takes lines for the user.

  Raises:
    ValueError: the configuration or the data is not usable, or the work directory
      belongs to another configuration.
    FileNotFoundError: there is no such data.
    OSError: the work directory cannot be written to, or another run is at work there.
    NonFiniteError: a loss or a parameter became infinite or not a number.
  """
  started = time.time()
  configuration.validate(config)
  folder = Path(workdir).absolute()
  if not first_process():  # the first one writes and speaks for all
    return _train(config, folder, lambda text: None, started)
  with claimed(folder):
    return _train(config, folder, say, started)


def _train(config: ConfigDict, workdir: Path, say: Say, started: float) -> Outcome:
  checkpoints = Checkpoints(workdir / "checkpoints", keep=config.checkpoint.keep)
  resumed = checkpoints.latest() is not None
  as_json = json.loads(config.to_json_best_effort())
  if resumed:
    before = configuration.from_saved(checkpoints.read_config())
    check_config(json.loads(before.to_json_best_effort()), as_json)
  mesh = distributed.data_mesh()
  distributed.check_batch_size(mesh, config.batch_size, config.accumulate)
  images = inputs.images(config, say)
  feed.on_device(config, images.train)
  shapes = inputs.silhouettes(config)

  epoch_steps = len(images.train) // config.batch_size
  total_steps = config.num_steps or config.num_epochs * epoch_steps
  # A run keeps the colour it began with, even if it goes on with other images.
  if resumed:
    extra = checkpoints.read_extra()
  else:
    extra = {"mean_color": inputs.mean_color(config, images.train)}
  run = build.run(
    config, total_steps=total_steps, mean_color=extra["mean_color"], shapes=shapes
  )
  encoder = None if resumed else build.encoder_params(config)

  def init() -> TrainState:
    return run.init(config.seed, average=config.ema_decay > 0)

  abstract = jax.eval_shape(init)
  state_sharding = distributed.of_state(mesh, abstract, config.sharding)
  create = jax.jit(init, out_shardings=state_sharding, compiler_options=xla.RUNS_ONCE)

  def restore(step: int | None = None) -> TrainState:
    placed = jax.tree.map(
      lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
      abstract,
      state_sharding,
    )
    return checkpoints.restore(placed, step)[0]

  state = restore() if resumed else create()
  if encoder is not None:
    state = with_encoder(state, encoder)
  step = int(state.step)
  if resumed:
    say(f"Resuming at step {step} of {total_steps} from {workdir}.")
  key = jax.random.key(config.seed)
  everywhere = jax.jit(
    lambda: jax.random.key(config.seed), out_shardings=distributed.replicated(mesh)
  )()
  with (
    checkpoints,
    contextlib.closing(
      History(workdir, up_to_step=step, write=first_process())
    ) as history,
    Interruption() as interruption,
    contextlib.closing(
      feed.dispatches(
        config,
        run.train_step,
        images.train,
        everywhere,
        mesh,
        state_sharding=state_sharding,
        start=step,
        stop=total_steps,
      )
    ) as dispatches,
  ):
    loop = Loop(
      config=config,
      workdir=workdir,
      validation=images.validation,
      checkpoints=checkpoints,
      history=history,
      eval_step=jax.jit(
        make_eval_step(run.generator, run.task), compiler_options=xla.options()
      ),
      inference_variables=lambda state: distributed.local(
        mesh, inference_variables(run.generator, state)
      ),
      key=key,
      saved={"config": as_json, "extra": extra},
      total_steps=total_steps,
      epoch_steps=epoch_steps,
      started=started,
      say=say,
    )
    bad = len(images.summary.skipped)
    state, reason = loop.run(state, dispatches, interruption)
    if len(images.summary.skipped) > bad:
      say(images.summary.skipped_line())
    if loop.skips.total:
      say(f"Steps skipped since their outcome was not finite: {loop.skips.total}.")
    if reason == "interrupted":
      loop.save(state)
      checkpoints.wait()
      say(
        f"Stopped at step {int(state.step)} of {total_steps} and saved in {workdir}."
        " The same command goes on from there."
      )
      return Outcome(int(state.step), total_steps, reason, {})
    checkpoints.wait()
    best, at_best = checkpoints.best(), state
    if best not in (None, int(state.step)):
      try:
        at_best = restore(best)
      except DamagedError as error:
        say(f"{error} The last step is judged instead.")
    results = loop.finish(at_best)
  return Outcome(int(state.step), total_steps, reason, results)
