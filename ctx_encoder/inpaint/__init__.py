"""Fills holes in pictures of any size with a trained network.

    from ctx_encoder.inpaint import Inpainter

    inpainter = Inpainter.from_workdir("runs/quickstart")
    completed = inpainter("photograph.jpg", "mask.png")  # uint8 [H, W, 3]

TensorFlow is not required.
"""

from ctx_encoder.data.decode import BadImage
from ctx_encoder.inpaint.blending import BLENDS
from ctx_encoder.inpaint.inpainter import Inpainter
from ctx_encoder.inpaint.pictures import (
  grown,
  hole_of_color,
  is_lossy,
  read_image,
  read_mask,
)
from ctx_encoder.inpaint.plan import STRATEGIES

__all__ = [
  "BLENDS",
  "STRATEGIES",
  "BadImage",
  "Inpainter",
  "grown",
  "hole_of_color",
  "is_lossy",
  "read_image",
  "read_mask",
]
