"""Masks for inpainting: every kind is a pure function of a PRNG key.

Masks are `[S, S, 1]` float32, 1 = hole, for one example; `for_examples` makes a batch,
one key per example:

  sample = masks.make_sampler("random_block", 128)
  masks.for_examples(sample, jax.random.key(0), jnp.arange(16))  # [16, 128, 128, 1]

Random numbers are drawn as integers and used in integer arithmetic, so a key gives the
same mask, bit for bit, at any batch size, jitted or not.

References: Pathak et al., Context Encoders, CVPR 2016, section 3.3; Yu et al.,
Free-Form Image Inpainting with Gated Convolution, ICCV 2019 (brush).
"""

from ctx_encoder.masks.blocks import center, random_block
from ctx_encoder.masks.fill import masked_image, parse_fill, smooth_fill
from ctx_encoder.masks.regions import region_noise, region_shapes
from ctx_encoder.masks.sampler import Sampler, combined, for_examples, make_sampler
from ctx_encoder.masks.strokes import brush

__all__ = [
  "Sampler",
  "brush",
  "center",
  "combined",
  "for_examples",
  "make_sampler",
  "masked_image",
  "parse_fill",
  "random_block",
  "region_noise",
  "region_shapes",
  "smooth_fill",
]
