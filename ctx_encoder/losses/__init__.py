"""Loss terms as functions of arrays; importing them loads jax and nothing else."""

from ctx_encoder.losses.adversarial import discriminator_loss, generator_loss
from ctx_encoder.losses.combine import combine
from ctx_encoder.losses.reconstruction import masked_l1, masked_l2

__all__ = [
  "combine",
  "discriminator_loss",
  "generator_loss",
  "masked_l1",
  "masked_l2",
]
