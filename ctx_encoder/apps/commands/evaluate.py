"""Measures a trained generator against baselines, with 95 % confidence intervals.

Every system completes the same images with the same holes, which depend on --seed and
the image's name alone. Prints a table for each kind of hole and, with --json, writes
every figure: L1, L2, PSNR and SSIM of the hole, the whole image and the centre patch,
the error at the seam, each per image, and by the hole's area.

    ctx-encoder evaluate --workdir runs/photos_block --images photos
    ctx-encoder evaluate --workdir runs/photos_block --masks center brush \\
        --baselines mean telea nearest --json results.json

Several work directories are compared with each other too. Of the pictures that a run
was trained on only its validation part is used, unless --all says otherwise. With the
weights of a network (--trunk) KID and FID over its features are added, with those of
LPIPS (--heads) LPIPS too.
"""

import argparse
import dataclasses
import json
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ctx_encoder import data, masks
from ctx_encoder.data import files, silhouettes
from ctx_encoder.evaluation import baselines, perceptual
from ctx_encoder.evaluation import compare as comparison
from ctx_encoder.evaluation.nearest import make_nearest
from ctx_encoder.training import trained
from ctx_encoder.training.inference import make_complete

KINDS = ("center", "random_block", "random_region", "brush", "combined")
COLUMNS = {
  "psnr_hole": ("PSNR hole (dB)", 1.0, 2),
  "l1_hole": ("L1 hole (%)", 100.0, 2),
  "l2_hole": ("L2 hole (%)", 100.0, 2),
  "ssim_hole": ("SSIM hole", 1.0, 3),
  "psnr_image": ("PSNR image (dB)", 1.0, 2),
  "seam": ("seam (%)", 100.0, 2),
  "lpips": ("LPIPS", 1.0, 3),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "--workdir",
    nargs="+",
    required=True,
    help="folders of runs, as launch.py made them; NAME=FOLDER to call one otherwise",
  )
  parser.add_argument(
    "--images",
    help="folder of images, of TFRecords, or name of a TFDS data set (default: what the"
    " first run was trained with)",
  )
  parser.add_argument(
    "--all",
    action="store_true",
    help="use all images, and not only the run's validation part of them",
  )
  parser.add_argument(
    "--max-images", type=int, default=0, help="at most this many (default: all)"
  )
  parser.add_argument(
    "--masks",
    nargs="+",
    choices=KINDS,
    default=list(KINDS[:4]),
    metavar="KIND",
    help=f"kinds of holes, of: {', '.join(KINDS)} (default: the first four)",
  )
  parser.add_argument(
    "--mask-dir", default="", help="folder of mask images, brighter than half = hole"
  )
  parser.add_argument("--seed", type=int, default=0, help="of the holes (default: 0)")
  parser.add_argument(
    "--baselines",
    nargs="*",
    choices=(*baselines.BASELINES, "nearest"),
    default=["mean", "telea"],
    metavar="NAME",
    help="systems to compare with, of: mean, telea, navier_stokes, biharmonic (a second"
    " an image), nearest (the training patch whose surroundings fit best)"
    " (default: mean telea)",
  )
  parser.add_argument(
    "--batch-size", type=int, default=16, help="images a call (default: 16)"
  )
  parser.add_argument("--json", help="file to write every figure to")
  parser.add_argument(
    "--network",
    choices=tuple(perceptual.NETWORKS),
    default="alex",
    help="network of --trunk and --heads (default: alex)",
  )
  parser.add_argument(
    "--trunk", help="its weights as torchvision has them, .pth, .safetensors or .npz"
  )
  parser.add_argument("--heads", help="weights of LPIPS v0.1 for it, .pth or .npz")


def run(args: argparse.Namespace) -> int:
  """Prints the tables; returns 0, or 1 where an argument does not serve."""
  return answer("evaluate", evaluate, args)


def answer(
  command: str,
  measure: Callable[[argparse.Namespace], dict[str, Any]],
  args: argparse.Namespace,
) -> int:
  """Measures, and writes what --json asks for; returns the command's exit code."""
  try:
    figures = measure(args)
  except (OSError, ValueError, ImportError) as error:
    print(f"ctx-encoder {command}: {error}", file=sys.stderr)
    return 1
  if args.json:
    files.write(args.json, json.dumps(figures, indent=1) + "\n")
    print(f"Every figure is in {args.json}.")
  return 0


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
  """Prints the tables and returns what --json writes.

  Raises:
    FileNotFoundError: there is no such run, or no such images.
    ValueError: the runs do not fit together, or an argument is wrong.
  """
  plan = make_plan(args)
  print(plan.what)
  for name, model in plan.models.items():
    print(f"{name}: step {model.step} of {model.workdir}")
  figures = plan.header()
  for kind in plan.samplers:
    found, distributions = plan.compare(kind)
    figures["kinds"][kind] = kind_figures(
      kind, found, list(plan.models), list(plan.systems)
    )
    if distributions:
      print(f"\n{perceptual.distribution_table(distributions)}")
      figures["kinds"][kind]["distributions"] = distributions
  return figures


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """Who completes which images with which holes."""

  models: dict[str, trained.Trained]
  systems: dict[str, comparison.System]
  samplers: dict[str, masks.Sampler]
  examples: data.Examples
  judge: perceptual.Perceptual | None
  args: argparse.Namespace
  what: str

  def compare(self, kind: str) -> tuple[comparison.Comparison, dict[str, Any]]:
    """Returns what was measured on one kind of hole, and FID and KID if asked for."""
    collect = perceptual.Collector(self.judge) if self.judge else None
    with tqdm(
      total=len(self.examples), unit="img", desc=kind, leave=False, mininterval=1
    ) as bar:
      found = comparison.compare(
        self.systems,
        self.examples,
        self.samplers[kind],
        jax.random.key(self.args.seed),
        batch_size=self.args.batch_size,
        measure=self.judge.measure if self.judge else None,
        see=collect.see if collect else None,
        progress=bar.update,
      )
    return found, collect.distributions() if collect else {}

  def header(self) -> dict[str, Any]:
    """Returns what the written figures begin with."""
    return {
      "images": len(self.examples),
      "image_size": self.examples.image_size,
      "seed": self.args.seed,
      "models": {name: model.step for name, model in self.models.items()},
      "kinds": {},
    }


def make_plan(args: argparse.Namespace) -> Plan:
  """Loads runs, images and baselines; raises before anything expensive starts."""
  if args.batch_size < 1:
    raise ValueError(f"--batch-size must be at least 1, not {args.batch_size}.")
  models = load_runs(args.workdir)
  size = image_size(models)
  judge = None
  if args.trunk:
    judge = perceptual.Perceptual(args.network, args.trunk, args.heads)
  elif args.heads:
    raise ValueError("--heads are of LPIPS and need --trunk, the network's weights.")
  samplers = mask_samplers(args, size)
  reference = next(iter(models.values()))
  examples, what = images(args, reference)
  systems = {name: system(model) for name, model in models.items()}
  chosen = [name for name in args.baselines if name != "nearest"]
  for printed, complete in baselines.available(chosen).items():
    systems[printed] = comparison.of_baseline(complete)
  if "nearest" in args.baselines:
    nearest = make_nearest(training_images(reference))
    systems["nearest patch"] = comparison.of_baseline(nearest)
  what = f"{what} at {size}x{size}, holes of seed {args.seed}."
  return Plan(models, systems, samplers, examples, judge, args, what)


def kind_figures(
  kind: str, found: comparison.Comparison, models: list[str], systems: list[str]
) -> dict[str, Any]:
  """Prints the tables of one kind of hole and returns its figures."""
  summary = found.summary()
  print(
    f"\n## {kind}: {len(found.names)} images, holes of {100 * found.area.mean():.1f} %"
    " of the image on average\n"
  )
  print(comparison.table(summary, COLUMNS))
  differences: dict[str, dict[str, Any]] = {}
  for model in models:
    for other in systems:
      if other == model or (
        other in models and models.index(other) < models.index(model)
      ):
        continue
      interval = found.difference(model, other, "psnr_hole")
      differences.setdefault(model, {})[other] = interval._asdict()
      mean, low, high = interval
      print(
        f"\n{model} against {other}: {mean:+.2f} dB [{low:+.2f}, {high:+.2f}]", end=""
      )
  buckets = {name: found.summary(chosen) for name, chosen in found.buckets().items()}
  if len(buckets) > 1:
    rows = [["PSNR hole (dB), by hole area", *buckets]]
    for name in systems:
      means = (f"{bucket[name]['psnr_hole'].mean:.2f}" for bucket in buckets.values())
      rows.append([name, *means])
    counts = (str(int(chosen.sum())) for chosen in found.buckets().values())
    rows.append(["images", *counts])
    print(f"\n\n{comparison.markdown(rows)}", end="")
  print()
  return {
    "systems": as_json(summary),
    "differences_psnr_hole": differences,
    "buckets": {name: as_json(bucket) for name, bucket in buckets.items()},
    "per_image": {
      "names": list(found.names),
      "area": found.area.tolist(),
      "systems": {
        name: {metric: values.tolist() for metric, values in measured.items()}
        for name, measured in found.values.items()
      },
    },
  }


def as_json(summary) -> dict[str, Any]:
  return {
    system: {metric: interval._asdict() for metric, interval in measured.items()}
    for system, measured in summary.items()
  }


def load_runs(workdirs: Sequence[str]) -> dict[str, trained.Trained]:
  """Returns {name: model} of folders, or of NAME=FOLDER to call a run otherwise.

  Runs of one name are told apart by their folders.

  Raises:
    ValueError: two have one name.
    FileNotFoundError, DamagedError: see `trained.load`.
  """
  runs = []
  for text in workdirs:
    name, equals, folder = text.partition("=")
    given = bool(equals) and not Path(text).exists()
    model = trained.load(folder if given else text)
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


def system(model: trained.Trained) -> comparison.System:
  """Returns a trained generator as a system."""
  complete = make_complete(model.generator, model.variables, model.task)

  def completed(batch: np.ndarray, holes: np.ndarray) -> np.ndarray:
    keys = None
    if model.config.model.noise_dim:  # an image has its noise, in whatever batch
      sums = np.array([zlib.crc32(image) for image in batch], np.uint32)
      keys = jax.vmap(jax.random.key)(sums)
    return np.asarray(complete(batch, holes, keys))

  return completed


def mask_samplers(args: argparse.Namespace, size: int) -> dict[str, masks.Sampler]:
  """Returns {kind: sampler} of what is asked for."""
  samplers = {kind: masks.make_sampler(kind, size) for kind in args.masks}
  if args.mask_dir:
    holes = silhouettes.load_masks(args.mask_dir, size)
    samplers[Path(args.mask_dir).name] = comparison.of_files(holes)
  return samplers


def images(
  args: argparse.Namespace, model: trained.Trained
) -> tuple[data.Examples, str]:
  """Returns the images to complete and a line about them.

  Of the run's own data set the validation part, of others all.
  """
  options = model.config.data
  settings, own = data.evaluation_settings(options, args.images, cache="memory")
  everything = args.all or not own
  loaded = load_data(settings, everything)
  examples = loaded.train if everything else loaded.validation
  if not len(examples):
    raise ValueError(
      "The run was trained without validation images; give --all, or other --images."
    )
  if args.max_images:
    examples = first(examples, args.max_images)
  part = "All" if everything else "The validation part,"
  what = f"{part} {len(examples)} images of {loaded.summary.where},"
  return comparison.centered(examples, options.image_size), what


def training_images(model: trained.Trained) -> np.ndarray:
  """Returns what a run was trained on, uint8 `[N, S, S, 3]`, centre crops."""
  settings, _ = data.evaluation_settings(model.config.data, cache="memory")
  examples = load_data(settings, everything=False).train
  images = comparison.centered(examples, model.config.data.image_size).images
  assert images is not None  # they are kept in memory
  return images


def load_data(settings, everything: bool) -> data.Data:
  """Loads images and reports skipped ones; all are in `train` if `everything`."""
  loaded = data.load(settings, everything=everything)
  if line := loaded.summary.skipped_line():
    print(line, file=sys.stderr)
  return loaded


def first(examples: data.Examples, count: int) -> data.Examples:
  """Returns the first images by name."""
  assert examples.images is not None
  positions = np.arange(min(count, len(examples)))
  return examples.keep(positions, examples.images[positions])
