"""Calls commands the way the shell does, through `ctx-encoder`."""

from ctx_encoder.apps import cli
from ctx_encoder.apps.arguments import Parser


def call(command, *arguments):
  """Runs a module of `apps.commands`, or one of that name; returns the exit code."""
  return cli.main([_name(command), *map(str, arguments)])


def parse(command, *arguments):
  """Returns the arguments of a module of `apps.commands`, parsed."""
  parser = Parser(_name(command), command.__doc__)
  command.add_arguments(parser)
  return parser.parse([str(argument) for argument in arguments])


def refusal(capsys, command, *arguments):
  """Runs a command that ends with exit code 1 and one line; returns the line."""
  assert call(command, *arguments) == 1
  error = capsys.readouterr().err
  assert error.startswith(f"ctx-encoder {_name(command)}")
  assert error.count("\n") == 1, error
  return error


def _name(command):
  if isinstance(command, str):
    return command
  return command.__name__.rpartition(".")[2].replace("_", "-")
