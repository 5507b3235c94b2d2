"""The parser of every command: defaults in the help, ranges, misspelt options."""

import argparse
import math
from collections.abc import Sequence
from typing import Any, NoReturn

from ctx_encoder.config import Field, nearest


class Parser(argparse.ArgumentParser):
  """Parses the arguments of a command; what is wrong with them is said in one line."""

  def __init__(self, command: str, description: str | None):
    super().__init__(
      prog=f"ctx-encoder {command}", description=description, formatter_class=_Help
    )
    self._ranges: dict[str, tuple[str, float, float]] = {}

  def number(
    self,
    option: str,
    default: float | Sequence[float],
    help: str,
    low: float = -math.inf,
    high: float = math.inf,
  ) -> None:
    """Adds an option for a number, or for several where the default is a list."""
    several = isinstance(default, Sequence)
    action = self.add_argument(
      option,
      type=type(default[0] if several else default),
      default=default,
      nargs="+" if several else None,
      help=help,
    )
    self._ranges[action.dest] = option, low, high

  def field(self, field: Field, default: float) -> None:
    """Adds an option for a number that is a field of the configuration."""
    option = "--" + field.name.rpartition(".")[2].replace("_", "-")
    self.number(option, default, field.help, field.low, field.high)

  def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the arguments; exits with code 2 where they cannot be parsed.

    Raises:
      ValueError: a number is out of its range.
    """
    options = list(self._option_string_actions)
    for argument in arguments:
      option = argument.partition("=")[0]
      if option.startswith("--") and not any(o.startswith(option) for o in options):
        self.error(f"there is no {option}{nearest(option, options, 1)}")
    args = self.parse_args(arguments)
    for name, (option, low, high) in self._ranges.items():
      given = getattr(args, name)
      for value in given if isinstance(given, Sequence) else [given]:
        if not low <= value <= high:
          wanted = (
            f"at least {low:g}" if high == math.inf else f"within [{low:g}, {high:g}]"
          )
          raise ValueError(f"{option} must be {wanted}, not {value:g}.")
    return args

  def error(self, message: str) -> NoReturn:
    self.exit(2, f"{self.prog}: {message}. See {self.prog} --help\n")


class _Help(argparse.RawDescriptionHelpFormatter):
  """Ends the help of an option with its default."""

  def _get_help_string(self, action: argparse.Action) -> str | None:
    default: Any = action.default
    none = default in (None, "", argparse.SUPPRESS) or action.nargs == 0
    if not action.help or none or "(default" in action.help:
      return action.help
    several = default if isinstance(default, list | tuple) else [default]
    shown = " ".join(f"{x:g}" if isinstance(x, float) else str(x) for x in several)
    return f"{action.help} (default: {shown})" if shown else action.help
