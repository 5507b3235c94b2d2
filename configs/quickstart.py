"""The first thing to run: a small network on the embedded photographs, all holes.

  python launch.py --config=configs/quickstart.py

It shows that everything works, within minutes on a laptop; it is not meant to impress.
"""

from ctx_encoder import config as base


def get_config(variant: str = ""):
  config = base.variant(base.default(), "quick")
  config.name = "quickstart"
  config.masks.kind = "combined"
  config.masks.probabilities.brush = 1.0
  config.num_steps = 1000
  if variant:
    return base.variant(config, variant)
  return config
