"""Calls commands the way the shell does, through `ctx-encoder`."""

from ctx_encoder.apps import cli


def call(command, *arguments):
  """Runs a module of `apps.commands`; returns the exit code."""
  name = command.__name__.rpartition(".")[2].replace("_", "-")
  return cli.main([name, *map(str, arguments)])
