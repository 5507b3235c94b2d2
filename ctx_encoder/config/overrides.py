"""Configurations as commands are given them: FILE[:VARIANT], and FIELD=VALUE."""

import ast
import importlib.util
from pathlib import Path
from typing import Any

from ctx_encoder.config import schema as configuration


def read(text: str) -> Any:
  """Returns what a configuration file gives, for FILE or FILE:VARIANT.

  Raises:
    OSError, ImportError: the file cannot be read.
  """
  path, _, variant = text.partition(":")
  if not Path(path).is_file():
    raise FileNotFoundError(f"There is no configuration file {path!r}.")
  spec = importlib.util.spec_from_file_location("_configuration_file", path)
  if spec is None or spec.loader is None:
    raise ImportError(f"{path!r} is not a Python file.")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


def parse(text: str, *, several: bool = False) -> tuple[str, list[Any]]:
  """Returns (field, values) of FIELD=VALUE, or where there may be several FIELD=V1,V2.

  Raises:
    ValueError: it is not of that form, or there is no such field.
  """
  name, equals, values = text.partition("=")
  if not equals or not values:
    raise ValueError(f"{text!r} is not FIELD=VALUE.")
  if name not in dict(configuration.fields()):
    raise ValueError(configuration.unknown(name))
  parts = values.split(",") if several else [values]
  return name, [_literal(part) for part in parts]


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def set_field(config: Any, name: str, value: Any) -> None:
  """Sets a dotted field; raises ValueError where the value is of another type."""
  try:
    config.update_from_flattened_dict({name: value})
  except (TypeError, ValueError) as error:
    raise ValueError(f"{name} cannot be {value!r}: {error}") from error
