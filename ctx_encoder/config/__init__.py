"""Configurations: their fields, what is valid, presets, and overriding fields.

`default()` returns a new one; files in `configs/` start from it and change what they
need. `validate` refuses invalid values before anything expensive starts.
"""

from ctx_encoder.config.fields import Field, nearest, unknown
from ctx_encoder.config.inputs import MASK_KINDS, Augment, Data, Masks
from ctx_encoder.config.objective import DIFF_AUGMENTS
from ctx_encoder.config.overrides import (
  check_resume,
  flatten,
  from_saved,
  no_file,
  override,
  parse,
  read,
  to_dict,
)
from ctx_encoder.config.presets import LANDSCAPE, PAINTINGS, UNET, variant
from ctx_encoder.config.rules import validate
from ctx_encoder.config.schema import (
  ENCODER_SIDES,
  FIELDS,
  Adversarial,
  Config,
  Optimizer,
  Reconstruction,
  default,
)

__all__ = [
  "DIFF_AUGMENTS",
  "ENCODER_SIDES",
  "FIELDS",
  "LANDSCAPE",
  "MASK_KINDS",
  "PAINTINGS",
  "UNET",
  "Adversarial",
  "Augment",
  "Config",
  "Data",
  "Field",
  "Masks",
  "Optimizer",
  "Reconstruction",
  "check_resume",
  "default",
  "flatten",
  "from_saved",
  "nearest",
  "no_file",
  "override",
  "parse",
  "read",
  "to_dict",
  "unknown",
  "validate",
  "variant",
]
