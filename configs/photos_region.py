"""The report's 'Photos' generator (AlexNet-like) for arbitrary regions.

  python launch.py --config=configs/photos_region.py --config.data.path=FOLDER

Beyond the report: left-right flips, and averaged parameters for validation and use.

Reached with :quick, on an earlier set of embedded photographs, in 108 s on 2 CPU cores:
14.65 dB PSNR over the holes of 463 validation crops (mean colour 13.78, Telea 19.25).
"""

from ctx_encoder import config as base


def get_config(variant: str = ""):
  config = base.default()
  config.name = "photos_region"
  config.batch_size = 16
  config.model.generator = "photos"
  config.masks.kind = "random_region"
  config.augment.flip_horizontal = 0.5
  config.ema_decay = 0.999
  return base.variant(config, variant)
