"""The settings of Pathak et al.'s released code, for their centre model.

  python launch.py --config=configs/pathak_code.py --config.data.path=FOLDER

Where it departs from the report: images are stored at 350 pixels a side and a random
128x128 crop is trained on; the hole is filled with the data set's mean colour; the
network predicts the centre 64x64 patch, of which a ring of 4 pixels is visible to it
(weight 10 on that ring's error), and the discriminator judges the patch alone; the
generator's learning rate is ten times the discriminator's.

References: Pathak et al., Context Encoders, CVPR 2016, and their Torch code.

Reached with :quick: 18.20 dB PSNR over the holes of 578 crops of 17 embedded
photographs (mean colour 17.01, Telea 20.52).
"""

from ctx_encoder import config as base


def get_config(variant: str = ""):
  config = base.default()
  config.name = "pathak_code"
  config.batch_size = 64
  config.data.load_size = 350
  config.masks.kind = "center"
  config.masks.center_fraction = 0.4375  # 64 - 2 * 4 of 128 pixels
  config.masks.fill = "mean"
  config.augment.flip_horizontal = 0.5
  config.model.generator = "monet"
  config.model.dropout = 0.0
  config.model.predict = "patch"
  config.model.init = "dcgan"
  config.discriminator.sees = "patch"
  config.reconstruction.overlap = 4
  config.reconstruction.overlap_weight = 10.0
  config.optimizer.generator_multiplier = 10.0
  if variant == "quick":
    config.reconstruction.overlap = 2  # 28 + 2 * 2 of the 32 pixels of a patch
  return base.variant(config, variant)
