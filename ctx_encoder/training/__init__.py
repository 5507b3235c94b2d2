"""Training: losses and views, the steps, the loop, checkpoints, inference.

    run = training.run(config)                 # networks, losses, holes, update rules
    training.fit(run, images, "runs/mine")     # trains it, or resumes

`trainer.train(config, workdir)` does both and loads the images; `trained.load(workdir)`
returns the generator.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from ctx_encoder.training.assembly import run
  from ctx_encoder.training.setup import Run
  from ctx_encoder.training.trainer import fit, train

__all__ = ["Run", "fit", "run", "train"]

_HOMES = {"run": "assembly", "Run": "setup", "fit": "trainer", "train": "trainer"}


def __getattr__(name: str) -> Any:
  # Modules such as `history` load in milliseconds, the trainer in seconds.
  if name not in _HOMES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  import importlib

  return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
