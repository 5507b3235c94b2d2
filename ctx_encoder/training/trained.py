"""Loads a trained generator from the work directory of its run."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ctx_encoder import config as configuration
from ctx_encoder.config import Config
from ctx_encoder.models import precision
from ctx_encoder.training import assembly
from ctx_encoder.training.checkpoint import Checkpoints
from ctx_encoder.training.setup import init_generator
from ctx_encoder.training.state import NetworkState, TrainState, inference_variables
from ctx_encoder.training.task import View

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
  """A generator with its weights.

  Attributes:
    workdir: folder of the run.
    step: training step of the checkpoint.
    config: the run's configuration.
    generator: the network.
    variables: its parameters and running statistics, see `state.inference_variables`.
    view: input and output of the network.
  """

  workdir: Path
  step: int
  config: Config
  generator: Any
  variables: Any
  view: View

  @property
  def name(self) -> str:
    return self.config.name


def load(
  workdir: str | Path, *, step: int | None = None, generator: Any = None
) -> Trained:
  """Returns the best generator of a run, or that of a given step.

  Args:
    workdir: folder of the run, as written by `launch.py`.
    step: a checkpoint's step; None = the best by the validation metric that
      `eval.best_by` names, or the last where there was no validation.
    generator: Flax module of a run of `training.fit` whose generator was replaced.

  Raises:
    FileNotFoundError: there is no checkpoint, or none of that step.
    DamagedError: the checkpoint is damaged.
    ValueError: the checkpoint is of another generator.
  """
  workdir = Path(workdir).absolute()
  folder = workdir / "checkpoints"
  checkpoints = Checkpoints(folder)
  if checkpoints.latest() is None:
    raise FileNotFoundError(
      f"There is no checkpoint in {workdir}. Train one:"
      f" python launch.py --config=configs/quickstart.py --workdir={workdir}"
    )
  if step is None:
    newest = configuration.from_saved(checkpoints.read_config())
    metric, higher_is_better = newest.eval.best_metric()
    checkpoints = Checkpoints(
      folder, best_metric=metric, higher_is_better=higher_is_better
    )
    step = checkpoints.best()
  config = configuration.from_saved(checkpoints.read_config(step))
  extra = checkpoints.read_extra(step)
  if not generator:
    generator = assembly.generator(config)
    if notice := precision.notice(config.model.dtype, jax.default_backend()):
      _LOG.warning("%s: %s", config.name, notice)
  view = assembly.view(config, extra["mean_color"])
  key = jax.random.key(0)
  drawn = jax.eval_shape(lambda: init_generator(generator, view, key, key))
  number: Any = jax.ShapeDtypeStruct((), jnp.int32)
  needed = TrainState(
    step=number,
    updates=number,
    generator=NetworkState(drawn["params"], drawn.get("batch_stats", {}), None),
    discriminator=None,
    average=drawn["params"] if config.ema_decay > 0 else None,
  )
  state, _ = checkpoints.restore(needed, step, partial=True)
  variables = jax.tree.map(jnp.asarray, inference_variables(generator, state))
  return Trained(workdir, int(state.step), config, generator, variables, view)
