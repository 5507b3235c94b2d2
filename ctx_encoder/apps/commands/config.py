"""Lists the fields of a configuration: default, valid values and meaning.

Each is a flag of launch.py, as --config.<field>=<value>:

    ctx-encoder config            # all of them
    ctx-encoder config mask       # those with "mask" in their name
"""

import argparse
import math
import sys

from ctx_encoder import config


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds this command's arguments."""
  parser.add_argument(
    "pattern", nargs="?", default="", help="part of the names to list; default: all"
  )


def run(args: argparse.Namespace) -> int:
  """Prints the fields; returns the exit code."""
  chosen = [
    (name, field) for name, field in config.FIELDS.items() if args.pattern in name
  ]
  if not chosen:
    print(f"ctx-encoder config: no field has {args.pattern!r} in it.", file=sys.stderr)
    return 1
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
