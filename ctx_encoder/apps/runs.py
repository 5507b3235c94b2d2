"""Trained runs as systems to compare, with the images and holes to compare them on."""

import dataclasses
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ctx_encoder import config, data, masks
from ctx_encoder.data import silhouettes, split
from ctx_encoder.evaluation import baselines, compare, nearest, perceptual
from ctx_encoder.inpaint import shipped
from ctx_encoder.training import trained
from ctx_encoder.training.inference import make_complete

KINDS = (*config.MASK_KINDS, "combined")
NEAREST = "nearest patch"  # the printed name of the baseline `nearest`


@dataclasses.dataclass(frozen=True)
class Images:
  """Which images: those of a run, or others.

  Attributes:
    path: folder of images or TFRecords, or TFDS name; None = what the run was trained
      on.
    split: of a TFDS data set; None = the run's for its own images, else "train".
    data_dir: where TFDS keeps its data sets; None = as in the run's configuration.
    everything: use the training part of the run's own images too.
    max_images: at most this many, see `split.subset`; 0 = all.
  """

  path: str | None = None
  split: str | None = None
  data_dir: str | None = None
  everything: bool = False
  max_images: int = 0


@dataclasses.dataclass(frozen=True)
class Request:
  """What to compare.

  Attributes:
    workdirs: folders of runs; NAME=FOLDER names one otherwise.
    images: the images.
    masks: kinds of holes, of `KINDS`.
    mask_dir: folder of mask images, one more kind; "" = none.
    seed: of the holes.
    baselines: names of `baselines.BASELINES` and "nearest"; None = the default ones
      that are installed.
    batch_size: images a call.
    network: of `perceptual.NETWORKS`, for LPIPS, FID and KID.
    trunk: file of its weights; None = without these metrics.
    heads: file of the weights of LPIPS; None = without LPIPS.
  """

  workdirs: Sequence[str]
  images: Images = Images()
  masks: Sequence[str] = config.MASK_KINDS
  mask_dir: str = ""
  seed: int = 0
  baselines: Sequence[str] | None = None
  batch_size: int = 16
  network: str = "alex"
  trunk: str | None = None
  heads: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """A request with everything loaded.

  Attributes:
    request: what was asked for.
    models: {name: run}, all of one image size.
    systems: {name: system}, the runs first, then the baselines.
    samplers: {kind of hole: sampler}.
    examples: the images, in memory.
    about_images: a phrase about them.
    perceptual: metrics in a network's features, or None.
    notes: sentences on what had to be left out.
  """

  request: Request
  models: dict[str, trained.Trained]
  systems: dict[str, compare.System]
  samplers: dict[str, masks.Sampler]
  examples: data.Examples
  about_images: str
  perceptual: perceptual.Perceptual | None
  notes: list[str]

  @property
  def baselines(self) -> list[str]:
    return [name for name in self.systems if name not in self.models]

  def holes(self, kind: str):
    """Returns a function of image ids `[B]` to their masks of a kind."""
    sampler = self.samplers.get(kind)
    sampler = sampler or masks.make_sampler(kind, self.examples.image_size)
    return compare.draw(sampler, jax.random.key(self.request.seed))

  def compare(self, kind: str) -> compare.Comparison:
    """Measures all systems on one kind of hole, with a progress bar."""
    features = perceptual.Collector(self.perceptual) if self.perceptual else None
    with progress_bar(len(self.examples), kind) as bar:
      found = compare.compare(
        self.systems,
        self.examples,
        self.holes(kind),
        batch_size=self.request.batch_size,
        measure=self.perceptual.measure if self.perceptual else None,
        watch=features.watch if features else None,
        progress=bar.update,
      )
    return features.add_to(found) if features else found

  def header(self) -> dict[str, Any]:
    """Returns what the JSON of a command starts with."""
    found: dict[str, Any] = {
      "images": len(self.examples),
      "image_size": self.examples.image_size,
      "seed": self.request.seed,
      "models": {name: model.step for name, model in self.models.items()},
    }
    if self.perceptual:
      found["features"] = {
        "network": self.perceptual.printed,
        "layer": self.perceptual.layer,
      }
    return found


def make_plan(request: Request) -> Plan:
  """Loads runs, images and baselines.

  Raises:
    FileNotFoundError: there is no such run, or no such images.
    ModuleNotFoundError: a baseline that is asked for by name is not installed.
    ValueError: the runs do not fit together, one is damaged, or a request is wrong.
  """
  models = load_runs(request.workdirs)
  size = image_size(models)
  measures = None
  if request.trunk:
    measures = perceptual.Perceptual(request.network, request.trunk, request.heads)
  elif request.heads:
    raise ValueError("--heads are weights of LPIPS: they need --trunk, the network's.")
  samplers = {kind: masks.make_sampler(kind, size) for kind in request.masks}
  if request.mask_dir:
    files = silhouettes.load_masks(request.mask_dir, size)
    samplers[Path(request.mask_dir).name] = compare.of_files(files)
  first = next(iter(models.values()))
  others, notes = baseline_systems(request.baselines, first)
  if taken := sorted(models.keys() & others.keys()):
    raise ValueError(
      f"A run has the name of a baseline, {taken[0]!r}: leave that baseline out, or"
      " name the run otherwise, NAME=FOLDER."
    )
  examples, about = open_images(first, request.images)
  systems = {name: system(model) for name, model in models.items()} | others
  return Plan(request, models, systems, samplers, examples, about, measures, notes)


def load_runs(workdirs: Sequence[str]) -> dict[str, trained.Trained]:
  """Returns {name: model} of folders, or of NAME=FOLDER to name a run otherwise.

  "landscape" is the package's network, at 128x128. Runs of one name get the name of
  their folder behind it.

  Raises:
    ValueError: two have the same name and folder name.
    FileNotFoundError, DamagedError: see `trained.load`.
  """
  runs = []
  for text in workdirs:
    name, equals, folder = text.partition("=")
    given = bool(equals) and not Path(text).exists()
    folder = folder if given else text
    package = folder == shipped.NAME and not Path(folder).exists()
    model = shipped.model(shipped.SIDE) if package else trained.load(folder)
    runs.append((name if given else model.name, model))
  names = [name for name, _ in runs]
  found = {}
  for name, model in runs:
    unique = names.count(name) == 1
    found[name if unique else f"{name} ({model.workdir.name})"] = model
  if len(found) < len(runs):
    raise ValueError("--workdir names one run twice, or two of one name.")
  return found


def image_size(models: dict[str, trained.Trained]) -> int:
  """Returns the side of the models' images; raises ValueError where it differs."""
  sizes = {name: model.config.data.image_size for name, model in models.items()}
  if len(set(sizes.values())) > 1:
    raise ValueError(f"The runs are of different image sizes: {sizes}.")
  return next(iter(sizes.values()))


def system(model: trained.Trained) -> compare.System:
  """Returns a trained generator as a system."""
  complete = make_complete(model.generator, model.variables, model.view)

  def completed(batch: np.ndarray, holes: np.ndarray) -> np.ndarray:
    keys = None
    if model.config.model.noise_dim:  # an image has the same noise in every batch
      sums = np.array([zlib.crc32(image) for image in batch], np.uint32)
      keys = jax.vmap(jax.random.key)(sums)
    return np.asarray(complete(batch, holes, keys))

  return completed


def baseline_systems(
  names: Sequence[str] | None, model: trained.Trained
) -> tuple[dict[str, compare.System], list[str]]:
  """Returns {printed name: system} of baselines, and what had to be left out.

  Args:
    names: see `Request`; None = the default ones that are installed.
    model: the run on whose training images "nearest" works.

  Raises:
    ModuleNotFoundError: one that is named is not installed.
  """
  if names is None:
    chosen, notes = baselines.default()
  else:
    chosen, notes = baselines.named([n for n in names if n != "nearest"]), []
  found = {one.printed: compare.of_baseline(one.complete) for one in chosen}
  if "nearest" in (names or ()):
    complete = nearest.make_nearest(training_images(model))
    found[NEAREST] = compare.of_baseline(complete)
  return found, notes


def open_images(model: trained.Trained, images: Images) -> tuple[data.Examples, str]:
  """Returns the images to complete, of the model's size, and a phrase about them.

  Of the run's own images these are the validation part, of others all.

  Raises:
    FileNotFoundError: there are no such images.
    ValueError: the run was trained without validation images.
  """
  _, own = settings_of(model, images)
  everything = images.everything or not own
  loaded = load(model, dataclasses.replace(images, everything=everything))
  report_skipped(loaded)
  examples = loaded.train if everything else loaded.validation
  if not len(examples):
    raise ValueError(
      "The run was trained without validation images: add --all, or name other images"
      " with --images."
    )
  where = loaded.summary.where
  part = "all" if everything else "the validation part"
  found = len(examples)
  about = f"{found} images, {part} of {where}"
  positions = split.subset(examples.names, images.max_images)
  if len(positions) < found:
    assert examples.images is not None  # `load` keeps them in memory
    examples = examples.keep(positions, examples.images[positions])
    about = f"{len(positions)} images, chosen by name from {about}"
  return compare.centered(examples, model.config.data.image_size), about


def training_images(model: trained.Trained) -> np.ndarray:
  """Returns the images a run was trained on, uint8 `[N, S, S, 3]`, centre crops."""
  examples = load(model, Images()).train
  images = compare.centered(examples, model.config.data.image_size).images
  assert images is not None  # `load` keeps them in memory
  return images


def settings_of(
  model: trained.Trained, images: Images, **changes: Any
) -> tuple[config.Data, bool]:
  """Returns how to read images, and whether they are a run's own."""
  if images.data_dir is not None:
    changes["data_dir"] = images.data_dir
  return data.evaluation_settings(
    model.config.data, images.path, images.split, **changes
  )


def load(
  model: trained.Trained,
  images: Images,
  *,
  max_images: int | None = None,
  cache: str = "memory",
  loader: str = "auto",
) -> data.Data:
  """Returns images at the size that a run read them with.

  Args:
    model: the run.
    images: with `everything` they are all in `train`, else split as in the run. Their
      own `max_images` is for `open_images`.
    max_images: most images to read; None = as in the run for its own images, else all.
    cache, loader: fields of the configuration's section `data`.

  Raises:
    FileNotFoundError: there are no such images.
    ValueError: a split is named for another source than TFDS.
  """
  changes: dict[str, Any] = {"cache": cache, "loader": loader}
  if max_images is not None:
    changes["max_images"] = max_images
  settings, own = settings_of(model, images, **changes)
  try:
    return data.load(settings, everything=images.everything)
  except FileNotFoundError as error:
    if not own:
      raise
    raise FileNotFoundError(
      f"The images of run {model.name} cannot be read: {error} If they have moved, or"
      " to use others, name them with --images FOLDER (then all of them are used)."
    ) from error


def report_skipped(loaded: data.Data) -> None:
  """Prints how many images could not be read, if any."""
  if line := loaded.summary.skipped_line():
    print(line, file=sys.stderr)


def progress_bar(total: int, what: str) -> tqdm:
  return tqdm(total=total, unit="img", desc=what, leave=False, mininterval=1)
