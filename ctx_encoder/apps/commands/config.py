"""Lists the fields of a configuration: default, meaning and valid values.

    ctx-encoder config            # all fields
    ctx-encoder config mask       # fields with "mask" in their name

launch.py sets a field by a flag: --config.masks.fill=smooth
"""

import argparse
import math

from ctx_encoder import config
from ctx_encoder.apps.arguments import Parser


def add_arguments(parser: Parser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "pattern", nargs="?", default="", help="part of the fields' names (default: all)"
  )


def run(args: argparse.Namespace) -> int:
  """Prints the fields; returns 0."""
  chosen = [
    (name, field) for name, field in config.FIELDS.items() if args.pattern in name
  ]
  if not chosen:
    raise ValueError(f"no field has {args.pattern!r} in its name.")
  for name, field in chosen:
    print(f"{name} = {field.default!r}\n    {field.help}{_valid(field)}")
  return 0


def _valid(field: config.Field) -> str:
  if field.choices:
    return f"\n    one of: {', '.join(field.choices)}"
  if field.type is bool or field.type is str:
    return ""
  low = "" if math.isinf(field.low) else f", at least {field.low:g}"
  high = "" if math.isinf(field.high) else f", at most {field.high:g}"
  return f"\n    {field.type.__name__}{low}{high}"
