"""What a page tells, before it is written down."""

import dataclasses
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ctx_encoder.evaluation.compare import Comparison
from ctx_encoder.metrics.intervals import Interval

HOLE = np.array([255, 0, 200], np.uint8)  # a colour that photographs hardly have


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  """A picture with a hole, and what was made of it.

  Attributes:
    name: the picture's.
    original: uint8 `[S, S, 3]`.
    hole: bool `[S, S]`.
    completed: {system: uint8 `[S, S, 3]`}.
    psnr: {system: of the hole, dB}.
  """

  name: str
  original: np.ndarray
  hole: np.ndarray
  completed: dict[str, np.ndarray]
  psnr: dict[str, float]

  @property
  def masked(self) -> np.ndarray:
    return np.where(self.hole[..., None], HOLE, self.original)


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
  """One kind of hole.

  Attributes:
    name: of the kind.
    comparison: what was measured of all systems.
    summary: its means and intervals.
    cases: the same pictures for every system.
    extremes: {run: (best cases, worst cases)}.
    holes: some of them, bool `[N, S, S]`.
  """

  name: str
  comparison: Comparison
  summary: dict[str, dict[str, Interval]]
  cases: list[Case]
  extremes: dict[str, tuple[list[Case], list[Case]]]
  holes: np.ndarray


class Nearest(NamedTuple):
  """How far completed holes are from the training patch that is nearest to each.

  Attributes:
    distance: `[N]`, see `nearest.patch_distances`.
    contrast: `[N]`, the same measure between a hole and its own mean colour.
  """

  distance: np.ndarray
  contrast: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """One run.

  Attributes:
    name: of its system.
    config: its configuration.
    facts: {what: in words}: folder, step, time, parameters.
    curves: {title: PNG}; empty where nothing was logged.
    nearest: {whose holes: distances}; empty where the training pictures are gone.
    histogram: PNG of the distances; empty where they are.
    notes: sentences on what is missing, and what one must know.
  """

  name: str
  config: ConfigDict
  facts: dict[str, str]
  curves: dict[str, bytes]
  nearest: dict[str, Nearest]
  histogram: bytes
  notes: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
  """Runs of one image size, beside each other and beside the baselines.

  Attributes:
    runs: at least one.
    baselines: names of the systems that have learnt nothing.
    kinds: of holes, at least one.
    shown: names of the systems whose pictures are shown.
    images: a sentence on the images.
    side: pixels that pictures are shown with.
    method: {what: in words}: seed, machine, versions.
  """

  runs: list[Run]
  baselines: list[str]
  kinds: list[Kind]
  shown: list[str]
  images: str
  side: int
  method: dict[str, str]
