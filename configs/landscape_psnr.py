"""The highest PSNR instead of texture: the landscape network with an L1 loss only.

  python launch.py --config=configs/landscape_psnr.py --config.data.path=FOLDER
  python launch.py --config=configs/landscape_psnr.py --config.init_from=landscape \\
    --config.data.path=FOLDER --config.num_steps=2000

The second command fine-tunes the package's weights, which takes a fraction of the time.
Fills are smooth: the loss is least for the median of all that might be in the hole. For
pictures to look at, use `configs/landscape.py`.
"""

from ctx_encoder import config as base


def get_config(variant: str = ""):
  config = base.default()
  config.name = "landscape_psnr"
  config.update(base.LANDSCAPE)
  config.update({"reconstruction.pool": 1, "loss_weights.reconstruction": 1.0})
  for term in ("content", "adversarial", "feature_matching", "grid"):
    setattr(config.loss_weights, term, 0.0)
  config.ema_decay = 0.999
  return base.variant(config, variant)
