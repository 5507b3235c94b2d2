"""Several systems on the same images and the same holes, image by image."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctx_encoder import augment, data, masks, metrics, pixels
from ctx_encoder.metrics import intervals

# Images and masks, uint8 `[B, S, S, 3]` and float32 `[B, S, S, 1]`, to completed ones.
System = Callable[[np.ndarray, np.ndarray], np.ndarray]
Measure = Callable[[jax.Array, jax.Array, jax.Array], Mapping[str, jax.Array]]

# Hole areas are reported apart, in shares of the image.
BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
  """What was measured on one kind of hole.

  Attributes:
    names: the images', `N` of them.
    area: `[N]`, the holes', in shares of the image.
    values: {system: {metric: `[N]`}}.
  """

  names: tuple[str, ...]
  area: np.ndarray
  values: dict[str, dict[str, np.ndarray]]

  def summary(self, chosen: np.ndarray | None = None) -> dict[str, dict[str, Any]]:
    """Returns {system: {metric: interval}} over all images, or the chosen ones."""
    where = slice(None) if chosen is None else chosen
    return {
      system: {name: intervals.bootstrap(v[where]) for name, v in measured.items()}
      for system, measured in self.values.items()
    }

  def difference(self, one: str, other: str, metric: str) -> intervals.Interval:
    """Returns the mean difference, image by image, of a metric of two systems."""
    return intervals.bootstrap(self.values[one][metric] - self.values[other][metric])

  def buckets(self) -> dict[str, np.ndarray]:
    """Returns {range of hole areas: which images}, bool `[N]`, the empty left out."""
    found = {}
    for low, high in itertools.pairwise(BUCKETS):
      chosen = (self.area > low) & (self.area <= high)
      if chosen.any():
        found[f"{100 * low:.0f}-{100 * high:.0f} %"] = chosen
    return found


def compare(
  systems: Mapping[str, System],
  examples: data.Examples,
  sample: masks.Sampler,
  key: jax.Array,
  *,
  batch_size: int = 16,
  measure: Measure | None = None,
  see: Callable[[str, np.ndarray, np.ndarray, np.ndarray], None] | None = None,
  progress: Callable[[int], Any] | None = None,
) -> Comparison:
  """Completes all images by all systems and measures each.

  The hole of an image is a function of (key, the image's name) alone.

  Args:
    systems: {name: system}. All work on uint8, as they would in use.
    examples: the images.
    sample: PRNG key to mask.
    key: PRNG key of the masks.
    batch_size: images a call.
    measure: (completed, originals, masks), images in [0, 1], to {metric: `[B]`};
      `standard_metrics` unless given.
    see: is shown each batch: (system, originals, masks, completed), without what
      fills up the last one.
    progress: is told the number of images of each batch that is done.
  """
  measure = measure or standard_metrics
  draw = jax.jit(lambda index: masks.for_examples(sample, key, index))
  areas: list[np.ndarray] = []
  values: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in systems}
  for batch in data.validation_batches(examples, batch_size=batch_size):
    holes = np.asarray(draw(batch["index"]))
    good = batch["weight"] > 0
    areas.append(holes.mean(axis=(1, 2, 3))[good])
    originals = pixels.from_uint8(batch["image"])
    for name, complete in systems.items():
      completed = np.asarray(complete(batch["image"], holes))
      measured = measure(pixels.from_uint8(completed), originals, jnp.asarray(holes))
      for metric, found in measured.items():
        values[name].setdefault(metric, []).append(np.asarray(found, np.float64)[good])
      if see:
        see(name, batch["image"][good], holes[good], completed[good])
    if progress:
      progress(int(good.sum()))
  bad = set(examples.skipped)
  return Comparison(
    names=tuple(name for name in examples.names if name not in bad),
    area=np.concatenate(areas),
    values={
      name: {metric: np.concatenate(found) for metric, found in measured.items()}
      for name, measured in values.items()
    },
  )


@jax.jit
def standard_metrics(
  completed: jax.Array, originals: jax.Array, mask: jax.Array
) -> dict[str, jax.Array]:
  """L1, L2, PSNR and SSIM of hole, image and patch, and the error at the seam."""
  measured = metrics.by_region(completed, originals, mask)
  regions = {
    "hole": mask,
    "image": None,  # windows within the image, as papers report it
    "patch": metrics.center_patch(mask),
  }
  for name, region in regions.items():
    measured[f"ssim_{name}"] = metrics.ssim(completed, originals, region)
  measured["seam"] = metrics.seam_error(completed, originals, mask)
  return measured


def of_baseline(complete: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> System:
  """Returns a baseline, which takes one image, as a system."""

  def system(images: np.ndarray, holes: np.ndarray) -> np.ndarray:
    return np.stack(list(map(complete, images, holes[..., 0] > 0)))

  return system


def of_files(files: Sequence[np.ndarray] | np.ndarray) -> masks.Sampler:
  """Returns a sampler that draws one of given masks `[N, S, S, 1]`, as they are."""
  stack = jnp.asarray(np.asarray(files) > 0, jnp.float32)
  if stack.ndim != 4 or not len(stack):
    raise ValueError(f"Masks are [N, S, S, 1], and some; not {list(stack.shape)}.")
  return lambda key: stack[jax.random.randint(key, (), 0, len(stack))]


def centered(examples: data.Examples, size: int) -> data.Examples:
  """Returns the examples with the centre crop of `size` that validation sees."""
  if examples.image_size == size:
    return examples
  if examples.images is None:
    raise ValueError(f"Examples of {examples.image_size} pixels must be in memory.")
  cropped = np.asarray(augment.center_crop(jnp.asarray(examples.images), size))
  return dataclasses.replace(examples, images=cropped, image_size=size)


def table(
  rows: Mapping[str, Mapping[str, intervals.Interval]],
  columns: Mapping[str, tuple[str, float, int]],
) -> str:
  """Returns a Markdown table of intervals, "mean [low, high]".

  Args:
    rows: {system: {metric: interval}}.
    columns: {metric: (heading, factor, digits)}; a metric that no row has is left out.
  """
  used = {m: c for m, c in columns.items() if any(m in row for row in rows.values())}
  lines = [["", *(heading for heading, _, _ in used.values())]]
  for system, row in rows.items():
    cells = [system]
    for metric, (_, factor, digits) in used.items():
      if metric not in row:
        cells.append("-")
        continue
      mean, low, high = (f"{factor * x:.{digits}f}" for x in row[metric])
      cells.append(f"{mean} [{low}, {high}]")
    lines.append(cells)
  return markdown(lines)


def markdown(rows: Iterable[Sequence[str]]) -> str:
  """Returns rows of cells as a Markdown table, its columns aligned; the first heads."""
  rows = [list(row) for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [
    "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
    for row in rows
  ]
  rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
  return "\n".join([lines[0], rule, *lines[1:]])
