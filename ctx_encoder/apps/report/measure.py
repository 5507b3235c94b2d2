"""What a page tells of runs, measured: kinds of holes, training, memorisation."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ctx_encoder import data, masks
from ctx_encoder.apps.report import charts
from ctx_encoder.apps.report.records import Case, Kind, Nearest, Run
from ctx_encoder.evaluation import compare as comparison
from ctx_encoder.evaluation import nearest
from ctx_encoder.training import assembly as build
from ctx_encoder.training import history, trained

HOLES = 8  # masks of each kind in the gallery
COMPARED = 32  # completed holes that are looked up among the training pictures
LOOKED_AT = 3000  # training pictures they are looked up in, at the most
MEAN = "mean colour"  # the baseline that no picture is needed to imagine
_SPLIT = ("source", "path", "split", "validation_fraction", "max_images")


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """Who completes which images with which holes.

  Attributes:
    models: {name: run}, all of one image size.
    systems: {name: system}, of the models and the baselines.
    samplers: {kind: sampler}; "center" must be among them.
    examples: the images, in memory.
    key: PRNG key of the holes.
    batch_size: images a call.
  """

  models: dict[str, trained.Trained]
  systems: dict[str, comparison.System]
  samplers: dict[str, masks.Sampler]
  examples: data.Examples
  key: jax.Array
  batch_size: int

  @property
  def baselines(self) -> list[str]:
    return [name for name in self.systems if name not in self.models]

  @property
  def shown(self) -> list[str]:
    """The systems whose pictures are worth their place."""
    return [name for name in self.systems if name != MEAN]


def kind(plan: Plan, name: str, chosen: Sequence[int], extremes: int) -> Kind:
  """Measures all systems on one kind of hole.

  Args:
    plan: of the report.
    name: of the kind.
    chosen: positions of the images to show.
    extremes: number of best, and of worst, cases of each run.
  """
  with tqdm(
    total=len(plan.examples), unit="img", desc=name, leave=False, mininterval=1
  ) as bar:
    found = comparison.compare(
      plan.systems,
      plan.examples,
      plan.samplers[name],
      plan.key,
      batch_size=plan.batch_size,
      progress=bar.update,
    )
  orders = {run: np.argsort(found.values[run]["psnr_hole"]) for run in plan.models}
  ends = {
    run: (order[::-1][:extremes].tolist(), order[:extremes].tolist())
    for run, order in orders.items()
  }
  gallery = range(min(HOLES, len(plan.examples)))
  extreme = (at for best, worst in ends.values() for at in best + worst)
  wanted = sorted({*chosen, *extreme, *gallery})
  cases = dict(zip(wanted, complete(plan, name, wanted), strict=True))
  for at, case in cases.items():
    case.psnr.update({s: float(v["psnr_hole"][at]) for s, v in found.values.items()})
  return Kind(
    name=name,
    comparison=found,
    summary=found.summary(),
    cases=[cases[at] for at in chosen],
    extremes={
      run: ([cases[at] for at in best], [cases[at] for at in worst])
      for run, (best, worst) in ends.items()
    },
    holes=np.stack([cases[at].hole for at in gallery]),
  )


def complete(plan: Plan, name: str, positions: Sequence[int]) -> list[Case]:
  """Returns some images, with the holes that `compare` draws, completed by all.

  The batches are those of `compare`: a generator with noise does with a picture what it
  did when it was measured.

  Args:
    plan: of the report.
    name: kind of hole.
    positions: of the images, ascending.
  """
  sample = plan.samplers[name]
  draw = jax.jit(lambda index: masks.for_examples(sample, plan.key, index))
  cases, size, last = [], plan.batch_size, len(plan.examples) - 1
  for number in sorted({at // size for at in positions}):
    batch = np.arange(number * size, (number + 1) * size).clip(max=last)
    images = plan.examples.gather(batch)
    holes = np.asarray(draw(plan.examples.ids[batch]))
    made = {system: np.asarray(f(images, holes)) for system, f in plan.systems.items()}
    for at in positions:
      if at // size != number:
        continue
      i = at % size
      completed = {system: pictures[i] for system, pictures in made.items()}
      title = plan.examples.names[at]
      cases.append(Case(title, images[i], holes[i, ..., 0] > 0, completed, psnr={}))
  return cases


def run(plan: Plan, name: str, training: np.ndarray | str) -> Run:
  """Returns what is told of one run.

  Args:
    plan: of the report.
    name: of the run.
    training: its training images, uint8 `[N, S, S, 3]`, or why there are none.
  """
  model = plan.models[name]
  config = model.config
  notes = []
  lines, problem = measurements(model.workdir)
  if problem:
    notes.append(problem)
  found = {}
  if isinstance(training, str):
    notes.append(training)
  else:
    found = memorisation(plan, name, training)
  if config.model.predict == "patch":
    notes.append("It predicts the centre half alone: elsewhere, holes stay grey.")
  first = next(iter(plan.models.values())).config.data
  if any(config.data[field] != first[field] for field in _SPLIT):
    notes.append(
      "It was trained with other data settings than the first run: some of the pictures"
      " here may have been among its training pictures."
    )
  return Run(
    name=name,
    config=config,
    facts=facts(model, lines),
    curves=charts.curves(lines),
    nearest=found,
    histogram=charts.histogram({whose: far.distance for whose, far in found.items()}),
    notes=notes,
  )


def facts(model: trained.Trained, lines: list[dict[str, Any]]) -> dict[str, str]:
  """Returns {what: in words} of a run, its folder and its networks."""
  at = f"step {model.step}"
  if epochs := [line["epoch"] for line in lines if line["step"] == model.step]:
    at += f", epoch {epochs[0]:.3g}"
  if lines:
    at += f"; the run has made {lines[-1]['step']} steps"
  found = {"Network shown": at, "Trained for holes of kind": model.config.masks.kind}
  if seconds := max((line.get("seconds") or 0 for line in lines), default=0):
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    found["Training time"] = f"{hours} h {minutes} min {seconds} s"
  judged = (1, model.task.judged_size, model.task.judged_size, 3)
  judge = build.discriminator(model.config)
  judging = jax.eval_shape(
    judge.init, jax.random.key(0), jax.ShapeDtypeStruct(judged, np.float32)
  )
  found["Parameters of the generator"] = _count(model.variables["params"])
  found["Parameters of the discriminator"] = _count(judging["params"])
  return found | {"Folder": str(model.workdir)}


def _count(params: Any) -> str:
  return f"{sum(x.size for x in jax.tree.leaves(params)):,}"


def measurements(workdir: Path) -> tuple[list[dict[str, Any]], str]:
  """Returns the lines of a run's metrics.jsonl, and what is wrong with it, or ""."""
  path = workdir / "metrics.jsonl"
  if not path.is_file():
    return [], f"There is no {path}, so there are no curves."
  try:
    lines = [line for line in history.read(path) if _is_measurement(line)]
  except ValueError:  # not text at all
    lines = []
  return lines, "" if lines else f"{path} holds no measurement, so there are no curves."


def _is_measurement(line: Any) -> bool:
  if not isinstance(line, dict) or not {"step", "epoch"} <= line.keys():
    return False
  # What was not finite is null.
  numbers = all(isinstance(x, float | int | None) for x in line.values())
  return numbers and None not in (line["step"], line["epoch"])


def memorisation(plan: Plan, name: str, training: np.ndarray) -> dict[str, Nearest]:
  """Returns how far centre holes are from training patches, {whose holes: how far}."""
  spread = np.linspace(0, len(plan.examples) - 1, min(COMPARED, len(plan.examples)))
  cases = complete(plan, "center", spread.round().astype(int).tolist())
  if len(training) > LOOKED_AT:
    training = training[np.linspace(0, len(training) - 1, LOOKED_AT).astype(int)]
  rows, columns = np.nonzero(cases[0].hole)
  window = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
  patches = {"the true pictures": np.stack([case.original[window] for case in cases])}
  for system in (name, *plan.baselines):
    patches[system] = np.stack([case.completed[system][window] for case in cases])
  return {
    whose: Nearest(nearest.patch_distances(holes, training), contrast(holes))
    for whose, holes in patches.items()
  }


def contrast(patches: np.ndarray) -> np.ndarray:
  """Returns how far patches are from their mean colour, as `patch_distances` measures.

  Args:
    patches: uint8 `[N, h, w, 3]`; 4 divides h and w.

  Returns:
    `[N]`, in units of 0 to 255.
  """
  n, h, w, _ = patches.shape
  small = patches.reshape(n, h // 4, 4, w // 4, 4, 3).mean((2, 4))
  return np.sqrt(np.mean((small - small.mean((1, 2), keepdims=True)) ** 2, (1, 2, 3)))
