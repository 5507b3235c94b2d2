"""The one engine: systems complete images with holes, and are measured image by image.

A system is a function of images, uint8 `[B, S, S, 3]`, and masks, float32
`[B, S, S, 1]`, 1 = hole, that returns the completed images, uint8 `[B, S, S, 3]`.
`compare` measures systems for the commands, `validate` a network during training.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import augment, data, distributed, masks, metrics, pixels
from ctx_encoder.evaluation.table import Table, as_json
from ctx_encoder.metrics.headings import METRICS, Metric
from ctx_encoder.metrics.intervals import Interval, bootstrap

System = Callable[[np.ndarray, np.ndarray], np.ndarray]
Measure = Callable[[jax.Array, jax.Array, jax.Array], Mapping[str, jax.Array]]
Watch = Callable[[str, np.ndarray, np.ndarray, np.ndarray], None]
Batch = Mapping[str, np.ndarray]
EvalStep = Callable[..., tuple[dict[str, jax.Array], dict[str, jax.Array]]]
Means = dict[str, float]

MODEL = "this model"  # the network's row in the results of its training

# Results are also given by the hole's area, in these ranges of shares of the image.
AREAS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)

# Periods of the grids that upsampling layers leave, pixels.
GRID_PERIODS = (2, 4, 8)

_by_region = jax.jit(metrics.by_region)


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
  """Measurements of several systems on the same images and holes of one kind.

  Attributes:
    names: of the images, `N` of them.
    area: `[N]`, of the holes, as shares of the image.
    values: {system: {metric: `[N]`}}.
    sets: {system: {metric: interval or number}} of metrics that compare sets of images.
    columns: the metrics to print.
  """

  names: tuple[str, ...]
  area: np.ndarray
  values: dict[str, dict[str, np.ndarray]]
  sets: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  columns: Mapping[str, Metric] = dataclasses.field(default_factory=lambda: METRICS)

  @functools.cached_property
  def summary(self) -> dict[str, dict[str, Any]]:
    """{system: {metric: interval}} over all images, and the metrics of sets."""
    found = self.intervals(np.ones(len(self.area), bool))
    return {system: row | self.sets.get(system, {}) for system, row in found.items()}

  def intervals(self, chosen: np.ndarray) -> dict[str, dict[str, Interval]]:
    """Returns {system: {metric: interval}} over chosen images, bool `[N]`."""
    return {
      system: {name: _interval(name, v[chosen]) for name, v in measured.items()}
      for system, measured in self.values.items()
    }

  def table(self) -> Table:
    """Returns the means of all metrics with their intervals, a row for each system."""
    return Table.of(self.summary, self.columns)

  def difference(self, one: str, other: str, metric: str) -> Interval:
    """Returns the mean difference, image by image, of a metric of two systems."""
    return bootstrap(self.values[one][metric] - self.values[other][metric])

  def by_area(self) -> dict[str, np.ndarray]:
    """Returns {range of hole areas: bool `[N]`}, without the empty ranges."""
    found = {}
    for low, high in itertools.pairwise(AREAS):
      chosen = (self.area > low) & (self.area <= high)
      if chosen.any():
        found[f"{100 * low:.0f}-{100 * high:.0f} %"] = chosen
    return found

  def area_table(self) -> Table:
    """Returns the PSNR of the hole by the hole's area, and the number of images."""
    psnr, ranges = METRICS["psnr_hole"], self.by_area()
    columns = {
      name: dataclasses.replace(psnr, heading=name, unit="") for name in ranges
    }
    rows: dict[str, dict[str, Any]] = {
      system: {
        name: float(v["psnr_hole"][where].mean()) for name, where in ranges.items()
      }
      for system, v in self.values.items()
    }
    rows["images"] = {name: str(int(where.sum())) for name, where in ranges.items()}
    return Table.of(rows, columns, f"{psnr.label}, by hole area")

  def as_json(self) -> dict[str, Any]:
    """Returns all figures: means with intervals, the same by area, and each image's."""
    return {
      "systems": as_json(self.summary),
      "buckets": {
        name: as_json(self.intervals(chosen)) for name, chosen in self.by_area().items()
      },
      "per_image": {
        "names": list(self.names),
        "area": self.area.tolist(),
        "systems": {
          name: {metric: values.tolist() for metric, values in measured.items()}
          for name, measured in self.values.items()
        },
      },
    }


def over_batches(
  function: Callable[[Batch], Mapping[Any, Any]],
  batches: Iterable[Batch],
  count: int,
  progress: Callable[[int], Any] | None = None,
) -> dict[Any, np.ndarray]:
  """Applies a function to batches and joins its results, without filled-up rows.

  Args:
    function: a batch to {name: array `[B, ...]`}.
    batches: see `data.validation_batches`; rows of weight 0 are dropped.
    count: number of images at most.
    progress: is called with the number of images of each batch.

  Returns:
    {name: array `[N, ...]`} of the `N` images of weight 1.
  """
  found: dict[Any, np.ndarray] = {}
  done = 0
  for batch in batches:
    good = batch["weight"] > 0
    stop = done + int(good.sum())
    for name, values in function(batch).items():
      values = np.asarray(values)
      if name not in found:
        found[name] = np.empty((count, *values.shape[1:]), values.dtype)
      found[name][done:stop] = values[good]
    if progress:
      progress(stop - done)
    done = stop
  return {name: values[:done] for name, values in found.items()}


def chosen_batches(
  examples: data.Examples, positions: Sequence[int] | np.ndarray, batch_size: int
) -> Iterable[Batch]:
  """Yields the examples at some positions as `data.validation_batches` does."""
  for start in range(0, len(positions), batch_size):
    part = positions[start : start + batch_size]
    filled = np.resize(part, batch_size)
    yield {
      "image": examples.gather(filled),
      "index": examples.ids[filled],
      "weight": (np.arange(batch_size) < len(part)).astype(np.float32),
    }


def compare(
  systems: Mapping[str, System],
  examples: data.Examples,
  holes: Callable[[np.ndarray], jax.Array],
  *,
  batch_size: int = 16,
  measure: Measure | None = None,
  watch: Watch | None = None,
  progress: Callable[[int], Any] | None = None,
) -> Comparison:
  """Completes all images with all systems and measures each.

  Args:
    systems: {name: system}.
    examples: the images.
    holes: ids of images, int32 `[B]`, to their masks; see `draw`.
    batch_size: images a call; it changes no result.
    measure: (completed, originals, masks), images in [0, 1], to {metric: `[B]`};
      `standard_metrics` if None.
    watch: is called with (system, originals, masks, completed) of each batch.
    progress: is called with the number of images of each batch.
  """

  def measured(batch: Batch) -> dict[Any, Any]:
    drawn, good = np.asarray(holes(batch["index"])), batch["weight"] > 0

    def seen(name, completed):
      if watch:
        watch(name, batch["image"][good], drawn[good], completed[good])

    found: dict[Any, Any] = {"area": drawn.mean(axis=(1, 2, 3))}
    return found | _measure(
      systems, batch["image"], drawn, measure or standard_metrics, seen
    )

  batches = data.validation_batches(examples, batch_size=batch_size)
  found = over_batches(measured, batches, len(examples), progress)
  bad, area = set(examples.skipped), found.pop("area")
  values: dict[str, dict[str, np.ndarray]] = {name: {} for name in systems}
  for (name, metric), each in found.items():
    values[name][metric] = each.astype(np.float64)
  names = tuple(name for name in examples.names if name not in bad)
  return Comparison(names, area, values)


def validate(
  eval_step: EvalStep,
  variables: Any,
  examples: data.Examples,
  key: jax.Array,
  *,
  batch_size: int,
  baselines: Mapping[str, System] | None = None,
  more: Measure | None = None,
  watch: Watch | None = None,
) -> dict[str, Means]:
  """Returns {system: {metric: mean}} of the network being trained and of baselines.

  The images are shared by all processes, and the means are over all of them.

  Args:
    eval_step: `(variables, batch, key)` to ({metric: `[B]`}, images in [0, 1], among
      them "original", "mask" and "completed").
    variables: of the generator.
    examples: the validation images.
    key: PRNG key of the holes.
    batch_size: images a call, over all processes; it changes no result.
    baselines: {name: system} to measure on the same holes; the network is `MODEL`.
    more: further metrics, as `measure` of `compare`.
    watch: as for `compare`.
  """
  count = jax.process_count()
  batches = data.validation_batches(
    examples,
    batch_size=-(-batch_size // count) * count,
    process_index=jax.process_index(),
    process_count=count,
  )

  def measured(batch: Batch) -> dict[Any, Any]:
    own, images = eval_step(variables, _inputs(batch), key)
    originals, drawn = np.asarray(pixels.to_uint8(images["original"])), images["mask"]
    good = batch["weight"] > 0

    def seen(name: str, completed: np.ndarray) -> None:
      if watch:
        watch(name, originals[good], np.asarray(drawn)[good], completed[good])

    def measure(*arrays: jax.Array) -> Mapping[str, jax.Array]:
      return {**_by_region(*arrays), **(more(*arrays) if more else {})}

    if watch:
      seen(MODEL, np.asarray(pixels.to_uint8(images["completed"])))
    if more:
      own = {**own, **more(images["completed"], images["original"], drawn)}
    found: dict[Any, Any] = {}
    if baselines:
      found = _measure(baselines, originals, np.asarray(drawn), measure, seen)
    return found | {(MODEL, metric): values for metric, values in own.items()}

  found = over_batches(measured, batches, len(examples))
  return _means(found, (*(baselines or {}), MODEL))


def _means(
  found: Mapping[tuple[str, str], np.ndarray], systems: Sequence[str]
) -> dict[str, Means]:
  """Returns {system: {metric: mean}} over the images of all processes."""
  rows = [len(values) for values in found.values()][:1]
  sums = [float(values.astype(np.float64).sum()) for values in found.values()]
  *sums, total = distributed.sum_over_processes([*sums, *map(float, rows)])
  means: dict[str, Means] = {name: {} for name in systems}
  for (name, metric), value in zip(found, sums, strict=True):
    means[name][metric] = value / total
  return means


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

  Every call shows the same images with the same holes; arguments as for `validate`.
  """
  columns = ("original", "masked", "completed")

  def shown(batch: Batch) -> dict[str, jax.Array]:
    _, images = eval_step(variables, _inputs(batch), key)
    return {name: pixels.to_uint8(images[name]) for name in columns}

  last = len(examples) - 1
  positions = np.linspace(0, last, min(count, last + 1)).astype(int)
  batches = chosen_batches(examples, positions, batch_size)
  found = over_batches(shown, batches, len(positions))
  return [list(row) for row in zip(*map(found.__getitem__, columns), strict=True)]


@jax.jit
def standard_metrics(
  completed: jax.Array, originals: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
  """L1, L2, PSNR and SSIM of hole, image and patch; error at the seam; grid energy."""
  measured = metrics.by_region(completed, originals, mask)
  regions = {
    "hole": mask,
    "image": None,  # windows within the image, as papers report it
    "patch": metrics.center_patch(mask),
  }
  for name, region in regions.items():
    measured[f"ssim_{name}"] = metrics.ssim(completed, originals, region)
  measured["seam"] = metrics.seam_error(completed, originals, mask)
  for period in GRID_PERIODS:
    if 2 * period <= min(mask.shape[1:3]):
      measured[f"grid_{period}"] = metrics.grid_energy(completed, mask, period)
  return measured


def draw(sample: masks.Sampler, key: jax.Array) -> Callable[[np.ndarray], jax.Array]:
  """Returns a function of image ids `[B]` to masks: the same hole for an id always."""
  return jax.jit(lambda index: masks.for_examples(sample, key, index))


def of_baseline(complete: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> System:
  """Returns a baseline, a function of one image and its mask, as a system."""

  def system(images: np.ndarray, holes: np.ndarray) -> np.ndarray:
    return np.stack(list(map(complete, images, holes[..., 0] > 0)))

  return system


def of_files(files: Sequence[np.ndarray] | np.ndarray) -> masks.Sampler:
  """Returns a sampler that draws one of the given masks `[N, S, S, 1]`, unchanged."""
  stack = jnp.asarray(np.asarray(files) > 0, jnp.float32)
  if stack.ndim != 4 or not len(stack):
    raise ValueError(f"Masks must be [N, S, S, 1], N > 0, not {list(stack.shape)}.")
  return lambda key: stack[jax.random.randint(key, (), 0, len(stack))]


def centered(examples: data.Examples, size: int) -> data.Examples:
  """Returns the examples cropped to their centre, `size` pixels, as in validation."""
  if examples.image_size == size:
    return examples
  if examples.images is None:
    raise ValueError(f"Examples of {examples.image_size} pixels must be in memory.")
  cropped = np.asarray(augment.center_crop(jnp.asarray(examples.images), size))
  return dataclasses.replace(examples, images=cropped, image_size=size)


def _measure(
  systems: Mapping[str, System],
  images: np.ndarray,
  holes: np.ndarray,
  measure: Measure,
  watch: Callable[[str, np.ndarray], None] | None = None,
) -> dict[Any, Any]:
  """Returns {(system, metric): `[B]`} of one batch."""
  originals, found = pixels.from_uint8(images), {}
  for name, complete in systems.items():
    completed = np.asarray(complete(images, holes))
    if watch:
      watch(name, completed)
    measured = measure(pixels.from_uint8(completed), originals, jnp.asarray(holes))
    found |= {(name, metric): values for metric, values in measured.items()}
  return found


def _interval(metric: str, values: np.ndarray) -> Interval:
  """Returns the mean and its interval, of ratios the geometric mean."""
  if metric.startswith("grid_"):
    return Interval(*np.exp(bootstrap(np.log(values))).tolist())
  return bootstrap(values)


def _inputs(batch: Batch) -> dict[str, np.ndarray]:
  return {"image": batch["image"], "index": batch["index"]}
