"""The report's 'Photos' generator (AlexNet-like) for all three kinds of holes.

  python launch.py --config=configs/photos_combined.py --config.data.path=FOLDER

Beyond the report: left-right flips, and averaged parameters for validation and use.

Reached with :quick: 18.17 dB PSNR over the holes of 578 crops of 17 embedded
photographs (mean colour 16.06, Telea 20.80).
"""

from ctx_encoder import config as base


def get_config(variant: str = ""):
  config = base.default()
  config.name = "photos_combined"
  config.batch_size = 16
  config.model.generator = "photos"
  config.masks.kind = "combined"
  config.augment.flip_horizontal = 0.5
  config.ema_decay = 0.999
  return base.variant(config, variant)
