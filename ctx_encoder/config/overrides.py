"""Reading, changing, saving and comparing configurations."""

import ast
import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctx_encoder.config.fields import nearest, unknown
from ctx_encoder.config.schema import FIELDS, Config


def read(text: str) -> Config:
  """Returns the configuration of a file, for FILE or FILE:VARIANT.

  Raises:
    OSError, ImportError: the file cannot be read.
  """
  path, _, variant = text.partition(":")
  if not Path(path).is_file():
    raise FileNotFoundError(no_file(path))
  spec = importlib.util.spec_from_file_location("_configuration_file", path)
  if spec is None or spec.loader is None:
    raise ImportError(f"{path!r} is not a Python file.")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


def no_file(path: str) -> str:
  """Returns the message for a configuration file that is missing."""
  files = [*Path(path).parent.glob("[!_]*.py"), *Path("configs").glob("[!_]*.py")]
  near = nearest(Path(path).stem, {file.stem for file in files})
  return f"there is no configuration file {path!r}{near}"


def override(config: Config, values: Mapping[str, Any]) -> None:
  """Sets fields that a user names; of num_epochs and num_steps the named one counts.

  Raises:
    ValueError: both are named.
  """
  if "num_epochs" in values:
    if values.get("num_steps"):
      raise ValueError("num_epochs and num_steps both say how long to train: give one.")
    values = {**values, "num_steps": 0}
  config.update(values)


def parse(text: str, *, several: bool = False) -> tuple[str, list[Any]]:
  """Returns (field, values) of FIELD=VALUE, or with `several` of FIELD=V1,V2.

  Raises:
    ValueError: the text has another form, or there is no such field.
  """
  name, equals, values = text.partition("=")
  if not equals or not values:
    raise ValueError(f"{text!r} is not FIELD=VALUE.")
  if name not in FIELDS:
    raise ValueError(f"In {text!r}: {unknown(name, FIELDS)}.")
  parts = values.split(",") if several else [values]
  return name, [_literal(part) for part in parts]


def to_dict(config: Config) -> dict[str, Any]:
  """Returns nested dicts of what JSON can hold."""
  return dataclasses.asdict(config)


def from_saved(saved: Mapping[str, Any]) -> Config:
  """Returns the configuration that a run was saved with.

  Fields that did not exist then have their defaults; fields that no longer exist are
  left out.
  """
  config, values = Config(), flatten(saved)
  config.update({name: value for name, value in values.items() if name in FIELDS})
  return config


def flatten(config: Config | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns {dotted name: value} of nested sections or dicts."""
  values = config if isinstance(config, Mapping) else to_dict(config)
  flat = {}
  for name, value in values.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat


def check_resume(saved: Config, current: Config) -> None:
  """Checks that a run can be resumed under another configuration.

  Raises:
    ValueError: names every field that differs and may not, with both values.
  """
  before, now = flatten(saved), flatten(current)
  kept = {name for name, field in FIELDS.items() if not field.may_change}
  if current.optimizer.schedule != "constant":  # it depends on the number of steps
    kept |= {"num_steps", "num_epochs"}
  differences = [
    f"{name}: {before[name]!r} in the checkpoint, {now[name]!r} now"
    for name in sorted(kept)
    if before[name] != now[name]
  ]
  if differences:
    raise ValueError(
      f"The checkpoint was made with another configuration: {'; '.join(differences)}."
      " Use another --workdir, or restore the values of the checkpoint."
    )


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text
