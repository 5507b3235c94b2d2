"""A trained generator, out of the work directory of its run."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from ctx_encoder.config import schema as configuration
from ctx_encoder.models import Generator
from ctx_encoder.training import assembly as build
from ctx_encoder.training.checkpoint import Checkpoints
from ctx_encoder.training.state import inference_variables
from ctx_encoder.training.task import Task

# Of a checkpoint, what completing images needs: a third of it.
_NEEDED = ("step", "generator/params", "generator/batch_stats", "average")


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
  """A generator with its weights, and what it was trained to do.

  Attributes:
    workdir: folder of the run.
    step: training step of the checkpoint.
    config: the run's configuration.
    generator: the network.
    variables: its parameters and running statistics, see `state.inference_variables`.
    task: fill, normalisation and mask channel; its masks are centre squares, whatever
      the run's were.
  """

  workdir: Path
  step: int
  config: ConfigDict
  generator: Generator
  variables: Any
  task: Task

  @property
  def name(self) -> str:
    return self.config.name


def load(workdir: str | Path, *, step: int | None = None) -> Trained:
  """Returns the best generator of a run, or that of a given step.

  Args:
    workdir: folder of the run, as `launch.py` made it.
    step: a checkpoint's step; None = the one with the highest validation PSNR, or the
      last where there was no validation.

  Raises:
    FileNotFoundError: there is no checkpoint, or none of that step.
    DamagedError: the checkpoint is not what was written.
  """
  workdir = Path(workdir).absolute()
  checkpoints = Checkpoints(workdir / "checkpoints")
  if checkpoints.latest() is None:
    raise FileNotFoundError(
      f"There is no checkpoint in {workdir}. Train one:"
      f" python launch.py --config=configs/quickstart.py --workdir={workdir}"
    )
  if step is None:
    step = checkpoints.best()
  saved = checkpoints.read_config(step)
  config = configuration.from_saved(saved)
  # The sampler is not used here, and one of silhouettes would need their files.
  config.masks.kind = "center"
  config.loss_weights.style = 0.0
  extra = checkpoints.read_extra(step)
  run = build.run(config, total_steps=1, mean_color=extra["mean_color"])
  create = functools.partial(run.init, 0, average=config.ema_decay > 0)
  state, _ = checkpoints.restore(jax.eval_shape(create), step, only=_NEEDED)
  variables = jax.tree.map(jnp.asarray, inference_variables(run.generator, state))
  return Trained(
    workdir,
    int(state.step),
    configuration.from_saved(saved),
    run.generator,
    variables,
    run.task,
  )
