"""Texture instead of blur: the recipe of the weights that come with the package.

  python launch.py --config=configs/landscape.py --config.data.path=FOLDER
  python launch.py --config=configs/landscape.py --config.init_from=landscape \\
    --config.data.path=FOLDER --config.num_steps=2000

The second command fine-tunes those weights on other photographs. The generator is
`models.Landscape`: it has no transposed convolution, and a small term penalizes what
is left of a grid. In the hole only means of 4x4 pixels are compared with the original
(L1); texture comes from a content loss, from features of the discriminators, and from a
non-saturating game with R1 every 16th step. The discriminators, one of the image and
one of it at half size, get the mask, have no normalization, and their logits count by
the hole's share at their place.

The content loss needs weights, which are not in the package: with torchvision's of
SqueezeNet 1.1 and the heads of LPIPS v0.1 it is the recipe of `docs/landscape.md`,

  --config.content.path=squeezenet1_1.pth --config.content.heads=lpips_squeeze.pth

Without them it compares fixed random filters, which is a weaker guide. PSNR falls while
texture appears: --config.eval.path=alexnet.pth --config.eval.heads=lpips_alex.pth makes
LPIPS the measure of the best checkpoint.
"""

from ctx_encoder import config as base


def get_config(variant: str = ""):
  config = base.default()
  config.name = "landscape"
  config.update(base.LANDSCAPE)
  config.ema_decay = 0.999
  config = base.variant(config, variant)
  # R1 of the mean of the logits, as strong as 0.01 of the sum of all of them.
  own, side = config.discriminator, config.data.image_size
  logits = sum((side // 2 ** (own.depth + n) - 2) ** 2 for n in range(own.scales))
  config.adversarial.r1, config.adversarial.r1_every = 0.01 * logits**2, 16
  config.loss_warm_up.adversarial = config.loss_warm_up.feature_matching = 400
  return config
