"""The report's 'Photos' generator (AlexNet-like) for a square in the centre.

  python launch.py --config=configs/photos_center.py --config.data.path=FOLDER

Beyond the report: left-right flips, and averaged parameters for validation and use.

Reached after 27 thousand images, at 8 images a second on 2 CPU cores: 16.74 dB PSNR
over the holes of 578 validation photographs (L1 11.91 %, L2 2.52 %; mean colour 13.65
dB, Telea 16.15), 2422 photographs of gan-getting-started for training. Reached with
:quick: 19.95 dB PSNR over the holes of 578 crops of 17 embedded photographs (mean
colour 16.74, Telea 20.02).
"""

from ctx_encoder import config as base


def get_config(variant: str = ""):
  config = base.default()
  config.name = "photos_center"
  config.batch_size = 16
  config.model.generator = "photos"
  config.masks.kind = "center"
  config.augment.flip_horizontal = 0.5
  config.ema_decay = 0.999
  return base.variant(config, variant)
