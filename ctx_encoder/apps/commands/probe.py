"""Tells how much an encoder has learned: a linear probe on labelled pictures.

    ctx-encoder probe --workdir runs/photos_block --images FOLDER
    ctx-encoder probe --workdir runs/photos_block --images cifar10 --max-images 5000 \\
        --layer stage3 stage5 bottleneck --json probe.json

FOLDER has a folder for each class; of a TFDS data set, which `ctx-encoder data`
downloads, the class label is taken. The encoder's features of whole pictures, as
`ctx-encoder features` writes them, are told apart by logistic regression, its penalty
chosen on a part of the training pictures. The same is done with

- the same encoder untrained, for each of --seeds, with BatchNorm's statistics of the
  training pictures: their accuracies are averaged picture by picture;
- the pictures at 16x16, and their mean colours;
- nothing: always the class that most training pictures are of.

Accuracy is that on the test pictures, a share of every class that --seed draws. The
95 % intervals are over these (bootstrap), differences being taken picture by picture;
they do not cover another training of the encoder. Give pictures that it was not trained
on where you can: it may know those better than others.
"""

import argparse
import collections
import dataclasses
import functools
from typing import Any

import numpy as np
from tqdm import tqdm

from ctx_encoder import data
from ctx_encoder.apps.commands import evaluate
from ctx_encoder.apps.commands import features as features_command
from ctx_encoder.apps.probe import features
from ctx_encoder.apps.probe import linear as probe
from ctx_encoder.evaluation import compare as comparison
from ctx_encoder.metrics import intervals
from ctx_encoder.training import trained

PIXELS = {"pixels 16x16": 16, "mean colour": 1}
FEWEST = 5  # pictures of a class
CALIBRATION = 1024  # training pictures that an untrained encoder's BatchNorm sees


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  features_command.add_source_arguments(parser)
  parser.add_argument(
    "--layer",
    nargs="+",
    default=[features.BOTTLENECK],
    help="of: stage1, stage2, ... bottleneck, see `ctx-encoder features --help`"
    " (default: bottleneck)",
  )
  parser.add_argument(
    "--seeds",
    nargs="+",
    type=int,
    default=[0, 1, 2, 3, 4],
    help="of the untrained encoders (default: 0 1 2 3 4)",
  )
  parser.add_argument(
    "--seed", type=int, default=0, help="of the split into training and test"
  )
  parser.add_argument(
    "--test-fraction",
    type=float,
    default=0.25,
    help="share of each class that is for the test (default: 0.25)",
  )
  parser.add_argument("--json", help="file to write every figure to")


def run(args: argparse.Namespace) -> int:
  """Prints the table; returns 0, or 1 where an argument does not serve."""
  return evaluate.answer("probe", measure, args)


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
  """Pictures with their classes.

  examples: `N` pictures, in memory.
  classes: names of the `K` classes, sorted.
  labels: int `[N]` in [0, K).
  test: bool `[N]`, which are for the test.
  """

  examples: data.Examples
  classes: tuple[str, ...]
  labels: np.ndarray
  test: np.ndarray


def measure(args: argparse.Namespace) -> dict[str, Any]:
  """Prints the table and returns what --json writes.

  Raises:
    FileNotFoundError: there is no such run, or no such images.
    ValueError: an argument is wrong, or the pictures have no classes.
  """
  if not 0 < args.test_fraction < 1:
    raise ValueError(f"--test-fraction is between 0 and 1, not {args.test_fraction:g}.")
  if min(args.seed, *args.seeds) < 0:
    raise ValueError("--seed and --seeds are 0 or above.")
  model = features_command.load_run(args)
  extracts = {
    layer: features.make_extract(model.generator, model.task, layer, args.pool)
    for layer in args.layer
  }
  loaded = features_command.load_images(args, model, cache="memory")
  features_command.report_skipped(loaded)
  labelled = with_classes(loaded, args.test_fraction, args.seed)
  counts = collections.Counter(labelled.classes[i] for i in labelled.labels)
  test_count = int(labelled.test.sum())
  print(
    f"{model.name}: step {model.step} of {model.workdir}\n"
    f"{len(labelled.labels) - test_count} training and {test_count} test images of"
    f" {len(counts)} classes, split by seed {args.seed}."
  )
  untrained = random_variables(args, model, labelled)
  rows, layers = {}, {}
  for layer, extract in extracts.items():

    def probed(variables, what, extract=extract, layer=layer):
      function = functools.partial(extract, variables)
      return of_function(args, labelled, function, f"{layer}, {what}")

    own = probed(model.variables, "trained")
    others = [
      probed(variables, f"random {seed}") for seed, variables in untrained.items()
    ]
    layers[layer] = layer_figures(own, others, args.seeds)
    rows[f"{layer}, trained"] = layers[layer]["trained"]
    rows[f"{layer}, random"] = layers[layer]["random"]
  for name, side in PIXELS.items():
    function = features.make_pixels(model.task, side)
    rows[name] = figures(of_function(args, labelled, function, name))
  guess = probe.majority(labelled.labels, labelled.test)
  rows["majority class"] = {"accuracy": accuracy(guess)}
  print(f"\n{table(rows)}")
  for layer, found in layers.items():
    mean, low, high = (100 * x for x in found["difference"].values())
    seeds = [100 * x for x in found["by_seed"]]
    print(
      f"\n{layer}: trained minus random {mean:+.1f} points [{low:+.1f}, {high:+.1f}];"
      f" random by seed {min(seeds):.1f} to {max(seeds):.1f} %."
    )
  tested = np.flatnonzero(labelled.test)
  return {
    "run": model.name,
    "step": model.step,
    "classes": dict(sorted(counts.items())),
    "seed": args.seed,
    "seeds": args.seeds,
    "pool": args.pool,
    "test_images": [labelled.examples.names[i] for i in tested],
    "systems": rows,
    "layers": {
      layer: {key: found[key] for key in ("difference", "by_seed")}
      for layer, found in layers.items()
    },
  }


def with_classes(loaded: data.Data, fraction: float, seed: int) -> Labelled:
  """Returns pictures with their classes and split.

  Raises:
    ValueError: some have no class, there is only one, or too few of one.
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
  test = probe.stratified(labels, fraction, seed)
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
  random = features.make_random_variables(model.generator, model.task)
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
) -> tuple[probe.Probe, int]:
  """Returns what a probe of a function's features finds, and how many they are."""
  with tqdm(
    total=len(labelled.labels), unit="img", desc=what, leave=False, mininterval=1
  ) as bar:
    found, _ = features.of_examples(
      function, labelled.examples, batch_size=args.batch_size, progress=bar.update
    )
  probed = probe.probe(found, labelled.labels, labelled.test, seed=args.seed)
  return probed, found.shape[1]


def accuracy(correct: np.ndarray) -> dict[str, float]:
  return intervals.bootstrap(correct)._asdict()


def figures(found: tuple[probe.Probe, int]) -> dict[str, Any]:
  """Returns the figures of one probe."""
  probed, size = found
  return {
    "features": size,
    "accuracy": accuracy(probed.correct),
    "penalty": probed.penalty,
    "correct": probed.correct.tolist(),
  }


def layer_figures(
  own: tuple[probe.Probe, int], others: list[tuple[probe.Probe, int]], seeds: list[int]
) -> dict[str, Any]:
  """Returns the figures of a layer: trained, random, and the difference of the two."""
  by_seed = np.stack([probed.correct for probed, _ in others]).astype(np.float64)
  return {
    "trained": figures(own),
    "random": {
      "features": own[1],
      "accuracy": accuracy(by_seed.mean(axis=0)),
      "penalty": [probed.penalty for probed, _ in others],
      "correct": by_seed.mean(axis=0).tolist(),
    },
    "difference": accuracy(own[0].correct - by_seed.mean(axis=0)),
    "by_seed": by_seed.mean(axis=1).tolist(),
  }


def table(rows: dict[str, dict[str, Any]]) -> str:
  """Returns a Markdown table of accuracies."""
  lines = [["", "features", "accuracy (%)"]]
  for name, row in rows.items():
    mean, low, high = (f"{100 * x:.1f}" for x in row["accuracy"].values())
    lines.append([name, str(row.get("features", "-")), f"{mean} [{low}, {high}]"])
  return comparison.markdown(lines)
