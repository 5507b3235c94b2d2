"""The networks: two generators and a PatchGAN discriminator, as Flax modules."""

from ctx_encoder.models.folding import fold_batch_norm
from ctx_encoder.models.generator import GENERATORS, Generator, monet, photos
from ctx_encoder.models.layers import Settings, Stage
from ctx_encoder.models.patchgan import PatchGAN, probabilities, receptive_field

__all__ = [
  "GENERATORS",
  "Generator",
  "PatchGAN",
  "Settings",
  "Stage",
  "fold_batch_norm",
  "monet",
  "photos",
  "probabilities",
  "receptive_field",
]
