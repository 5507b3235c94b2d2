"""The first thing to run: a small network on the embedded photographs, all holes.

  python launch.py --config=configs/quickstart.py

The U-Net of `configs/unet.py`, narrow and 64x64: within two minutes on a laptop it is
better than the classical methods on photographs that it has not seen.

Reached, on the embedded photographs, of which 67 are for training and 17 for
validation: 22.00 dB PSNR over the holes of 578 validation crops (L1 6.84 %, L2 1.18 %;
mean colour 15.91 dB, Telea 21.43).
"""

from ctx_encoder import config as base


def get_config(variant: str = ""):
  config = base.default()
  config.update(base.UNET)
  config = base.variant(config, "quick")
  config.name = "quickstart"
  return base.variant(config, variant)
