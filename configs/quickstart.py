"""The first thing to run: a small network on the embedded photographs, all holes.

  python launch.py --config=configs/quickstart.py

It shows that everything works, within minutes on a laptop; it is not meant to impress.
Encoder and decoder are those of 'Monet', between them Pathak's channel-wise bottleneck:
having few weights, it learns most from few pictures.

Reached, on the embedded photographs, in 90 s on 2 CPU cores: 16.5 dB PSNR over the
holes of 463 validation crops (mean colour 14.06, Telea 20.02).
"""

from ctx_encoder import config as base


def get_config(variant: str = ""):
  config = base.variant(base.default(), "quick")
  config.name = "quickstart"
  config.num_steps = 1200
  config.update_from_flattened_dict(base.UNET)
  config.masks.kind = "combined"
  config.masks.probabilities.brush = 1.0
  config.augment.flip_horizontal = 0.5
  return base.variant(config, variant)
