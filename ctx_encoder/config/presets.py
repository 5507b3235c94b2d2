"""Groups of settings that several configurations share, and their short variants."""

from ctx_encoder.config.schema import Config

# Augmentation for paintings: they have an up and a down, and colours that the painter
# chose.
PAINTINGS = {
  "rotation": 10.0,
  "zoom": 0.2,
  "crop": 0.1,
  "flip_horizontal": 0.5,
  "brightness": 0.1,
  "contrast": 0.1,
  "saturation": 0.1,
}

# A generator beyond the report's: a U-Net that corrects a smooth fill, for all holes.
UNET = {
  "model.generator": "monet",
  "model.bottleneck": "channelwise",
  "model.skips": True,
  "model.mask_channel": True,
  "model.predict": "residual",
  "model.dropout": 0.0,
  "masks.fill": "smooth",
  "masks.kind": "combined",
  "masks.probabilities.brush": 1.0,
  "augment.flip_horizontal": 0.5,
}

# A fully convolutional generator with attention, for texture; see `models.landscape`.
# Its losses leave the hole's texture to features and to the discriminator.
LANDSCAPE = {
  "model.generator": "landscape",
  "model.mask_channel": True,
  "model.predict": "residual",
  "masks.fill": "smooth",
  "masks.kind": "combined",
  "masks.probabilities.brush": 1.0,
  "augment.flip_horizontal": 0.5,
  "discriminator.width": 0.75,
  "discriminator.norm": "none",
  "discriminator.mask_input": True,
  "discriminator.scales": 2,
  "reconstruction.norm": "l1",
  "reconstruction.pool": 4,
  "adversarial.patches": "hole",
  "adversarial.matching": "hole",
  "loss_weights.reconstruction": 2.0,
  "loss_weights.known": 1.0,
  "loss_weights.content": 1.5,
  "loss_weights.adversarial": 1.5,
  "loss_weights.feature_matching": 4.0,
  "loss_weights.grid": 0.02,
  "optimizer.learning_rate": 3e-4,
  "optimizer.generator_multiplier": 5 / 3,
  "optimizer.b2": 0.99,
  "optimizer.clip_norm": 1.0,
}

_SMALL = {
  "discriminator.width": 0.25,
  "optimizer.learning_rate": 2e-4,
  "optimizer.generator_multiplier": 5.0,
  "optimizer.schedule": "cosine",
  "num_steps": 1000,
  "eval.every_epochs": 3,
}

_QUICK = {
  "data.image_size": 64,
  "data.load_size": 0,
  "model.dropout": 0.0,
  "discriminator.width": 0.125,
  "optimizer.learning_rate": 5e-4,
  "eval.every_epochs": 5,
}


def variant(config: Config, name: str) -> Config:
  """Sets a configuration to one of its variants and returns it.

  Args:
    config: is changed.
    name: "" changes nothing; "quick" is narrow and 64x64, a few minutes on two cores;
      "small" is as narrow but 128x128, five minutes, as compared in EXPERIMENTS.md.
  Raises:
    ValueError: there is no such variant.
  """
  if not name:
    return config
  if name not in ("quick", "small"):
    raise ValueError(f"A configuration has the variants quick and small, not {name!r}.")
  config.update({"batch_size": 16, "ema_decay": 0.99, "model.width": 0.25})
  if name == "small":
    config.update(_SMALL)
  else:
    # As many steps as fit into three minutes on two cores.
    steps = {"photos": 1500, "monet": 1200, "landscape": 500}[config.model.generator]
    config.update(_QUICK | {"num_steps": steps})
  if config.model.generator == "landscape":  # which has neither wide layers nor dropout
    config.model.dropout = None
  config.name += f"_{name}"
  return config
