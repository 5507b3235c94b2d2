"""The `ctx-encoder` command."""

import importlib
import os
import select
import sys
from collections.abc import Sequence

from ctx_encoder.apps import console
from ctx_encoder.apps.arguments import Parser
from ctx_encoder.config import nearest

COMMANDS = {
  "data": "describe a source of images; download a TFDS data set",
  "masks": "draw a gallery of the kinds of holes",
  "augment": "write augmented copies of a folder of images",
  "stylize": "turn photographs into painting-like training images",
  "config": "list the fields of a configuration",
  "evaluate": "measure a trained generator against baselines",
  "crosseval": "measure several trained generators on every kind of hole",
  "inpaint": "fill holes in pictures of any size",
  "features": "write an encoder's features of pictures",
  "probe": "measure an encoder's features with a linear probe",
  "demo": "open a page in the browser that fills holes in pictures",
  "weights": "list published weights of feature networks, and download them",
  "report": "write an HTML page about one run or several",
  "sweep": "train over a grid of settings and seeds, and tabulate",
  "export": "write a trained generator as StableHLO or SavedModel",
  "export-keras": "write its weights for a Keras model, and print that model",
  "import-keras": "make a work directory from a Keras model's weights",
}

_USAGE = """usage: ctx-encoder COMMAND [options]

{commands}

`ctx-encoder COMMAND --help` explains a command and gives an example.
To train, run: python launch.py --config=configs/photos_block.py"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit code.

  A command is a module with `add_arguments(parser)` and `run(args) -> int`. Errors in
  its input, raised as OSError, ValueError or ImportError, end it with exit code 1 and
  one line on stderr, arguments that cannot be parsed with exit code 2; any other
  exception is a bug and keeps its traceback. Where the reader of stdout has ended, as
  in `ctx-encoder config | head`, the exit code is 141.
  """
  try:
    return _main(argv)
  except BrokenPipeError:
    # Python flushes again at its exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _main(argv: Sequence[str] | None) -> int:
  name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
  if name not in COMMANDS:
    return _usage(name)
  console.quiet_libraries()
  try:
    # Only this command is imported: some need a second to load.
    module = f"ctx_encoder.apps.commands.{name.replace('-', '_')}"
    command = importlib.import_module(module)
    parser = Parser(name, command.__doc__)
    command.add_arguments(parser)
    code = command.run(parser.parse(rest))
    print(end="", flush=True)  # sys.stdout is None if it is closed
    return code
  except (OSError, ValueError, ImportError) as error:
    if isinstance(error, BrokenPipeError) and _stdout_is_broken():
      raise
    print(f"ctx-encoder {name}{console.problem(error)}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    return 130


def _stdout_is_broken() -> bool:
  poll = select.poll()
  poll.register(sys.stdout.fileno(), 0)
  return any(event & select.POLLERR for _, event in poll.poll(0))


def _usage(name: str) -> int:
  """Prints the commands, to stderr where `name` is not a request for help."""
  requested = name in ("-h", "--help")
  stream = sys.stdout if requested else sys.stderr
  if not requested:
    near = nearest(name, COMMANDS, 1)
    print(f"ctx-encoder: there is no command {name!r}{near}.\n", file=stream)
  width = max(map(len, COMMANDS))
  lines = [f"  {command:{width}}  {text}" for command, text in COMMANDS.items()]
  print(_USAGE.format(commands="\n".join(lines)), file=stream, flush=True)
  return 0 if requested else 2


if __name__ == "__main__":
  sys.exit(main())
