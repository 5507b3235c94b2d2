"""The content of a report, before it is rendered."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from ctx_encoder.evaluation.compare import Comparison

HOLE = np.array([255, 0, 200], np.uint8)  # a colour that photographs rarely have


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  """A picture with a hole, and its completions.

  Attributes:
    name: the picture's.
    original: uint8 `[S, S, 3]`.
    hole: bool `[S, S]`.
    completed: {system: uint8 `[S, S, 3]`}.
    psnr: {system: PSNR of the hole, dB}.
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
    comparison: measurements of all systems.
    cases: the same pictures for every system.
    extremes: {run: (best cases, worst cases)}.
    holes: some of them, bool `[N, S, S]`.
  """

  name: str
  comparison: Comparison
  cases: list[Case]
  extremes: dict[str, tuple[list[Case], list[Case]]]
  holes: np.ndarray


class Nearest(NamedTuple):
  """Distances of completed holes to their nearest training patches.

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
    nearest: {whose holes: distances}; empty without the training pictures.
    distances: PNG of the distances; empty without them.
    notes: sentences on what is missing, and on what limits the results.
  """

  name: str
  config: Any
  facts: dict[str, str]
  curves: dict[str, bytes]
  nearest: dict[str, Nearest]
  distances: bytes
  notes: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
  """Runs of one image size, compared with each other and with the baselines.

  Attributes:
    runs: at least one.
    baselines: names of the systems that were not trained.
    kinds: of holes, at least one.
    shown: names of the systems whose pictures are shown.
    images: a sentence on the images.
    side: pixels that pictures are shown with at most.
    method: {what: in words}: seed, machine, versions.
  """

  runs: list[Run]
  baselines: list[str]
  kinds: list[Kind]
  shown: list[str]
  images: str
  side: int
  method: dict[str, str]
