"""The `ctx-encoder` command."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
  "data": "show what a source of images holds; download a TFDS data set",
  "masks": "draw a gallery of the kinds of holes",
  "augment": "write augmented copies of a folder of images",
  "stylize": "write photographs in the manner of paintings, as more training images",
  "config": "list the fields of a configuration",
  "evaluate": "measure a trained generator against baselines",
  "crosseval": "measure several trained generators on every kind of hole",
  "inpaint": "fill holes in pictures of any size",
  "features": "write what a trained encoder makes of pictures",
  "probe": "tell by a linear probe what a trained encoder has learned",
  "demo": "open a page in the browser that fills holes in pictures",
  "weights": "list published weights of feature networks, and download them",
  "report": "write an HTML page about one run or several",
  "sweep": "train over a grid of settings and seeds, and tabulate",
  "export": "write a trained generator for other programs: StableHLO, SavedModel",
  "export-keras": "write its weights for a Keras model, and print that model",
  "import-keras": "make a work directory of a Keras model's weights",
}

# What a command needs beside the extra `train`.
EXTRAS = {"demo": "demo"}

_USAGE = """usage: ctx-encoder COMMAND [options]

{commands}

`ctx-encoder COMMAND --help` explains a command and gives an example.
Training is started with: python launch.py --config=configs/photos_block.py"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit code."""
  name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
  if name not in COMMANDS:
    asked = name in ("-h", "--help")
    if not asked:
      print(f"ctx-encoder: there is no command {name!r}.\n", file=sys.stderr)
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items()]
    print(
      _USAGE.format(commands="\n".join(lines)), file=sys.stdout if asked else sys.stderr
    )
    return 0 if asked else 2
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts
  # Only the command that is called is imported: some need a second to load.
  try:
    command = importlib.import_module(
      f"ctx_encoder.apps.commands.{name.replace('-', '_')}"
    )
  except ModuleNotFoundError as error:
    extras = ["train", *filter(None, [EXTRAS.get(name)])]
    print(
      f"ctx-encoder {name} needs {error.name}, which is not installed:"
      f" pip install 'ctx-encoder[{','.join(extras)}]'",
      file=sys.stderr,
    )
    return 1
  parser = argparse.ArgumentParser(
    prog=f"ctx-encoder {name}",
    description=command.__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  command.add_arguments(parser)
  args = parser.parse_args(rest)
  try:
    return command.run(args)
  except (OSError, ValueError, ImportError) as error:
    print(f"ctx-encoder {name}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
  sys.exit(main())
