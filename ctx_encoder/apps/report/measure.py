"""Everything that a report shows, measured: holes, training, memorisation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ctx_encoder.apps.report import charts
from ctx_encoder.apps.report.records import Case, Kind, Nearest, Run
from ctx_encoder.apps.runs import Plan
from ctx_encoder.evaluation import baselines, compare, nearest
from ctx_encoder.training import assembly, history, trained
from ctx_encoder.training.objective import discriminator_size

HOLES = 8  # masks of each kind in the gallery
COMPARED = 32  # completed holes whose nearest training patches are searched
SEARCHED = 3000  # training pictures that are searched, at most
TRUE = "the true pictures"  # their holes are searched too
_SPLIT = ("source", "path", "split", "validation_fraction", "max_images")


def shown(plan: Plan) -> list[str]:
  """Returns the systems whose pictures are shown: all but the mean colour."""
  plain = baselines.BASELINES["mean"].printed
  return [name for name in plan.systems if name != plain]


def kind(plan: Plan, name: str, chosen: Sequence[int], extremes: int) -> Kind:
  """Measures all systems on one kind of hole.

  Args:
    plan: of the report.
    name: of the kind.
    chosen: positions of the images to show.
    extremes: number of best, and of worst, cases of each run.
  """
  found = plan.compare(name)
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
    cases=[cases[at] for at in chosen],
    extremes={
      run: ([cases[at] for at in best], [cases[at] for at in worst])
      for run, (best, worst) in ends.items()
    },
    holes=np.stack([cases[at].hole for at in gallery]),
  )


def complete(plan: Plan, name: str, positions: Sequence[int]) -> list[Case]:
  """Returns images at some positions, completed by all systems.

  Args:
    plan: of the report.
    name: kind of hole; the holes are those of `Plan.compare`.
    positions: of the images.
  """
  draw = plan.holes(name)

  def completed(batch: compare.Batch) -> dict[str | None, Any]:
    images, holes = batch["image"], np.asarray(draw(batch["index"]))
    made = {system: f(images, holes) for system, f in plan.systems.items()}
    return {"": images, None: holes[..., 0] > 0} | made

  batches = compare.chosen_batches(plan.examples, positions, plan.request.batch_size)
  found = compare.over_batches(completed, batches, len(positions))
  originals, holes = found.pop(""), found.pop(None)
  return [
    Case(
      plan.examples.names[at],
      originals[i],
      holes[i],
      {system: pictures[i] for system, pictures in found.items()},
      psnr={},
    )
    for i, at in enumerate(positions)
  ]


def run(plan: Plan, name: str, training: np.ndarray | str) -> Run:
  """Returns the record of one run.

  Args:
    plan: of the report.
    name: of the run.
    training: its training images, uint8 `[N, S, S, 3]`, or why they are missing.
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
    notes.append("It predicts only the centre half: holes elsewhere stay grey.")
  first = next(iter(plan.models.values())).config.data
  if any(getattr(config.data, name) != getattr(first, name) for name in _SPLIT):
    notes.append(
      "Its data settings differ from those of the first run: some of the pictures here"
      " may have been among its training pictures."
    )
  return Run(
    name=name,
    config=config,
    facts=facts(model, lines),
    curves=charts.curves(lines),
    nearest=found,
    distances=charts.distances({whose: far.distance for whose, far in found.items()}),
    notes=notes,
  )


def facts(model: trained.Trained, lines: list[dict[str, Any]]) -> dict[str, str]:
  """Returns {what: in words} about a run, its folder and its networks."""
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
  side = discriminator_size(model.view, model.config.discriminator.sees)
  discriminator = jax.eval_shape(
    assembly.discriminator(model.config).init,
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, side, side, 3), np.float32),
  )
  found["Parameters of the generator"] = _count(model.variables["params"])
  found["Parameters of the discriminator"] = _count(discriminator["params"])
  return found | {"Folder": str(model.workdir)}


def _count(params: Any) -> str:
  return f"{sum(x.size for x in jax.tree.leaves(params)):,}"


def measurements(workdir: Path) -> tuple[list[dict[str, Any]], str]:
  """Returns the lines of a run's metrics.jsonl, and a sentence if there are none."""
  path = workdir / "metrics.jsonl"
  if not path.is_file():
    return [], f"There is no {path}, so there are no curves."
  lines = [line for line in history.read(path) if line.get("epoch") is not None]
  return lines, "" if lines else f"{path} holds no measurement, so there are no curves."


def memorisation(plan: Plan, name: str, training: np.ndarray) -> dict[str, Nearest]:
  """Returns {whose holes: distances of centre holes to training patches}."""
  spread = np.linspace(0, len(plan.examples) - 1, min(COMPARED, len(plan.examples)))
  cases = complete(plan, "center", spread.round().astype(int).tolist())
  if len(training) > SEARCHED:
    training = training[np.linspace(0, len(training) - 1, SEARCHED).astype(int)]
  rows, columns = np.nonzero(cases[0].hole)
  window = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
  patches = {TRUE: np.stack([case.original[window] for case in cases])}
  for system in (name, *plan.baselines):
    patches[system] = np.stack([case.completed[system][window] for case in cases])
  return {
    whose: Nearest(nearest.patch_distances(holes, training), contrast(holes))
    for whose, holes in patches.items()
  }


def contrast(patches: np.ndarray) -> np.ndarray:
  """Returns the distances of patches from their mean colour, as `patch_distances`.

  Args:
    patches: uint8 `[N, h, w, 3]`; 4 divides h and w.

  Returns:
    `[N]`, in units of 0 to 255.
  """
  n, h, w, _ = patches.shape
  small = patches.reshape(n, h // 4, 4, w // 4, 4, 3).mean((2, 4))
  return np.sqrt(np.mean((small - small.mean((1, 2), keepdims=True)) ** 2, (1, 2, 3)))
