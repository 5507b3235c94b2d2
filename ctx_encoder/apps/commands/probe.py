"""Measures what an encoder has learned: a linear probe on labelled images.

    ctx-encoder probe --workdir runs/photos_block --images FOLDER
    ctx-encoder probe --workdir runs/photos_block --images cifar10 --max-images 5000 \\
        --layer stage3 stage5 bottleneck --json probe.json

FOLDER has a folder for each class; a TFDS data set, which `ctx-encoder data` downloads,
has class labels. Logistic regression classifies the images by the encoder's features,
those that `ctx-encoder features` writes; its penalty is chosen on a part of the
training images. The same is done with

- the same encoder untrained, once for each of --seeds, with BatchNorm's statistics of
  the training images: their accuracies are averaged image by image;
- the images at 16x16, and their mean colours;
- no features: the most frequent class of the training images is always predicted.

Accuracy is measured on the test images, a share of every class that --seed draws. The
95 % intervals are bootstrapped over these, for differences image by image; they do not
cover another training of the encoder. Give images that the encoder was not trained on
where you can: it may know those better than others.
"""

import argparse
import collections
import dataclasses
import functools
from typing import Any

import numpy as np

from ctx_encoder import data
from ctx_encoder.apps import runs
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.apps.commands import features as features_command
from ctx_encoder.apps.commands.evaluate import write_json
from ctx_encoder.apps.probe import features, linear
from ctx_encoder.evaluation.table import Table, as_json
from ctx_encoder.metrics.headings import Metric
from ctx_encoder.metrics.intervals import bootstrap
from ctx_encoder.training import trained

PIXELS = {"pixels 16x16": 16, "mean colour": 1}
FEWEST = 5  # images of a class
CALIBRATION = 1024  # training images for the BatchNorm of an untrained encoder

COLUMNS = {
  "features": Metric("features", digits=0),
  "accuracy": Metric("accuracy", "%", 100, 1, True),
}


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  features_command.add_source_arguments(parser)
  parser.add_argument(
    "--layer",
    nargs="+",
    default=[features.BOTTLENECK],
    help="of: stage1, stage2, ... bottleneck, see `ctx-encoder features --help`",
  )
  parser.number("--seeds", [0, 1, 2, 3, 4], "of the untrained encoders", 0)
  parser.number("--seed", 0, "of the split into training and test", 0)
  share = "share of each class that is for the test"
  parser.number("--test-fraction", 0.25, share, 0.01, 0.99)
  parser.add_argument("--json", help="file to write every figure to")


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
  """Images with their classes.

  examples: `N` images, in memory.
  classes: names of the `K` classes, sorted.
  labels: int `[N]` in [0, K).
  test: bool `[N]`, True for the test images.
  """

  examples: data.Examples
  classes: tuple[str, ...]
  labels: np.ndarray
  test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Probed:
  """Results of the probe of some features.

  features: their number.
  correct: `[T]`, for each test image the share of probes that were right.
  penalty: of the probe, or a list of those of several.
  """

  features: int
  correct: np.ndarray
  penalty: Any

  def row(self) -> dict[str, Any]:
    return {"features": self.features, "accuracy": bootstrap(self.correct)}


def run(args: argparse.Namespace) -> int:
  """Prints the table and writes the figures.

  Raises:
    FileNotFoundError: there is no such run, or no such images.
    ValueError: the run has no such layer, or the images have no classes.
  """
  model, loaded = features_command.load(args, cache="memory", check=args.layer)
  runs.report_skipped(loaded)
  labelled = with_classes(loaded, args.test_fraction, args.seed)
  counts = collections.Counter(labelled.classes[i] for i in labelled.labels)
  test_count = int(labelled.test.sum())
  print(
    f"{model.name}: step {model.step} of {model.workdir}\n"
    f"{len(labelled.labels) - test_count} training and {test_count} test images of"
    f" {len(counts)} classes, split by seed {args.seed}."
  )
  probes, layers = measure(args, model, labelled)
  guess = linear.majority(labelled.labels, labelled.test)
  rows = {name: probed.row() for name, probed in probes.items()}
  rows["majority class"] = {"accuracy": bootstrap(guess)}
  print(f"\n{Table.of(rows, COLUMNS).markdown()}")
  print_differences(layers)
  systems = as_json(rows)
  for name, probed in probes.items():
    correct = probed.correct.tolist()
    systems[name] |= {"penalty": probed.penalty, "correct": correct}
  figures = {
    "run": model.name,
    "step": model.step,
    "classes": dict(sorted(counts.items())),
    "seed": args.seed,
    "seeds": args.seeds,
    "pool": args.pool,
    "test_images": [labelled.examples.names[i] for i in np.flatnonzero(labelled.test)],
    "systems": systems,
    "layers": as_json(layers),
  }
  write_json(args.json, figures)
  return 0


def measure(
  args: argparse.Namespace, model: trained.Trained, labelled: Labelled
) -> tuple[dict[str, Probed], dict[str, Any]]:
  """Probes every layer, trained and untrained, and pixels.

  Returns:
    {name of the features: results}, and for each layer the difference in accuracy of
    trained and untrained features, and the accuracies of the latter by seed.
  """
  untrained = random_variables(args, model, labelled)
  probes, layers = {}, {}
  for layer in args.layer:
    extract = features.make_extract(model.generator, model.view, layer, args.pool)

    def probed(variables, what, extract=extract, layer=layer):
      function = functools.partial(extract, variables)
      return of_function(args, labelled, function, f"{layer}, {what}")

    own = probed(model.variables, "trained")
    others = [
      probed(variables, f"random {seed}") for seed, variables in untrained.items()
    ]
    by_seed = np.stack([other.correct for other in others]).astype(np.float64)
    mean = by_seed.mean(axis=0)
    penalties = [other.penalty for other in others]
    probes[f"{layer}, trained"] = own
    probes[f"{layer}, random"] = Probed(own.features, mean, penalties)
    layers[layer] = {
      "difference": bootstrap(own.correct - mean),
      "by_seed": by_seed.mean(axis=1).tolist(),
    }
  for name, side in PIXELS.items():
    function = features.make_pixels(model.view, side)
    probes[name] = of_function(args, labelled, function, name)
  return probes, layers


def print_differences(layers: dict[str, Any]) -> None:
  """Prints by how much the trained features of each layer are better."""
  for layer, found in layers.items():
    mean, low, high = (100 * x for x in found["difference"])
    seeds = [100 * x for x in found["by_seed"]]
    print(
      f"\n{layer}: trained minus random {mean:+.1f} points [{low:+.1f}, {high:+.1f}];"
      f" random by seed {min(seeds):.1f} to {max(seeds):.1f} %."
    )


def with_classes(loaded: data.Data, fraction: float, seed: int) -> Labelled:
  """Returns images with their classes and split.

  Raises:
    ValueError: some have no class, there is only one class, or one has too few images.
  """
  examples = loaded.train
  missing = [name for name in examples.names if name not in loaded.labels]
  if missing:
    raise ValueError(
      f"{len(missing)} of {len(examples)} images have no class, such as {missing[0]!r}:"
      " give a folder with a folder for each class, or a TFDS data set with a label."
    )
  named = [loaded.labels[name] for name in examples.names]
  counts = collections.Counter(named)
  if len(counts) < 2:
    raise ValueError(f"All images are of one class, {named[0]!r}: there must be two.")
  rarest = min(counts, key=counts.__getitem__)
  if counts[rarest] < FEWEST:
    raise ValueError(
      f"Of class {rarest!r} there are {counts[rarest]} images: a probe needs {FEWEST}"
      " of each."
    )
  classes, labels = np.unique(named, return_inverse=True)
  test = linear.stratified(labels, fraction, seed)
  # The training part is split once more, to choose the penalty.
  if np.bincount(labels[~test]).min() < 2:
    raise ValueError(
      f"--test-fraction {fraction:g} leaves fewer than 2 training images of a class."
    )
  return Labelled(examples, tuple(classes.tolist()), labels, test)


def random_variables(
  args: argparse.Namespace, model: trained.Trained, labelled: Labelled
) -> dict[int, Any]:
  """Returns {seed: variables} of the run's network, untrained."""
  random = features.make_random_variables(model.generator, model.view)
  images = labelled.examples.images
  assert images is not None  # they are kept in memory
  order = np.random.default_rng(args.seed).permutation(np.flatnonzero(~labelled.test))
  order = order[:CALIBRATION]
  size = min(args.batch_size, len(order))
  batches = order[: len(order) // size * size].reshape(-1, size)
  return {
    seed: random(seed, (images[batch] for batch in batches)) for seed in args.seeds
  }


def of_function(
  args: argparse.Namespace, labelled: Labelled, function: Any, what: str
) -> Probed:
  """Probes the features that a function of images returns."""
  with runs.progress_bar(len(labelled.labels), what) as bar:
    found, _ = features.of_examples(
      function, labelled.examples, batch_size=args.batch_size, progress=bar.update
    )
  probed = linear.probe(found, labelled.labels, labelled.test, seed=args.seed)
  return Probed(found.shape[1], probed.correct, probed.penalty)
