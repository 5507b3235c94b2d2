"""Trains an inpainting network.

  python launch.py --config=configs/photos_block.py:quick
  python launch.py --config=configs/photos_block.py --config.data.path=photos/
  python launch.py --config=configs/monet_center.py --config.masks.fill=mean

The same command with the same work directory resumes a run. Every field of the
configuration is a flag; `ctx-encoder config` lists them.
"""

import pathlib
import sys
from typing import NoReturn

if not (3, 11) <= sys.version_info[:2] < (3, 14):
  sys.exit(
    f"launch.py needs Python 3.11, 3.12 or 3.13; this is {sys.version.split()[0]}"
  )

from ctx_encoder import config as configuration
from ctx_encoder import xla
from ctx_encoder.apps import console

if __name__ == "__main__":
  xla.use_huge_pages()  # before anything slow is imported
console.quiet_libraries()

try:
  from absl import app, flags, logging
  from ml_collections import config_flags
except ModuleNotFoundError as error:
  sys.exit(f"launch.py{console.problem(error)}")

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Configuration file; append :quick for a run of a few minutes."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run; runs/<name of the configuration> by default."
)
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed",
  False,
  "Whether this is one of several processes that train together. JAX detects Slurm,"
  " Open MPI, Cloud TPU and Kubernetes jobs; elsewhere the next three flags are"
  " needed.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of process 0, reachable by the others."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Number of this process, from 0."
)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    fail(f"{argv[1]!r} is not a flag; see --help.")
  config = _CONFIG.value
  if config is None:
    fail("--config is missing, for example --config=configs/photos_block.py:quick")
  try:
    # Of a file that cannot be loaded, absl raises the error at the first access.
    workdir = pathlib.Path("runs", config.name)
    values = configuration.flatten(config)
    configuration.override(config, {name: values[name] for name in _fields(sys.argv)})
    configuration.validate(config)
  except (ValueError, OSError) as error:
    fail(error)
  if _WORKDIR.value:
    workdir = pathlib.Path(_WORKDIR.value)
  try:
    # Imported here, so that --help and wrong flags answer at once.
    from ctx_encoder.training import trainer
  except ModuleNotFoundError as error:
    sys.exit(f"launch.py{console.problem(error)}")

  xla.cache_in(workdir / "cache")
  try:
    join()
    trainer.train(config, workdir)
  except (ValueError, OSError, trainer.NonFiniteError) as error:
    fail(error)


def join() -> None:
  """Connects to the other processes, if the flags name any."""
  import jax

  given = {
    "coordinator_address": _COORDINATOR.value,
    "num_processes": _NUM_PROCESSES.value,
    "process_id": _PROCESS_ID.value,
  }
  missing = [name for name, value in given.items() if value is None]
  if not _DISTRIBUTED.value and len(missing) == len(given):
    return
  if 0 < len(missing) < len(given):
    raise ValueError(
      "--coordinator, --num_processes and --process_id are needed together; on a"
      " cluster that JAX detects, --distributed is enough."
    )
  try:
    jax.distributed.initialize(**given)
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"The processes cannot connect: {error}") from error


def parse_flags(argv: list[str]) -> list[str]:
  """Parses flags as absl does, but reports errors in one line."""
  for field in _fields(argv):
    if field not in configuration.FIELDS:
      fail(configuration.unknown(field, configuration.FIELDS))
  for argument in argv[1:]:
    flag, _, file = argument.partition("=")
    path = file.partition(":")[0]
    if flag.lstrip("-") == "config" and path and not pathlib.Path(path).is_file():
      fail(configuration.no_file(path))
  try:
    rest = flags.FLAGS(argv)
  except (flags.Error, OSError) as error:
    fail(error)
  if flags.FLAGS["verbosity"].using_default_value:
    flags.FLAGS.verbosity = logging.ERROR  # no log lines of libraries
  return rest


def _fields(argv: list[str]) -> list[str]:
  """Returns the fields of the configuration that flags name."""
  flagged = (argument.partition("=")[0].partition(".") for argument in argv[1:])
  return [
    field
    for flag, _, field in flagged
    if flag.lstrip("-") in ("config", "noconfig")
    if field
  ]


def fail(problem: object) -> NoReturn:
  # absl reports an error in a configuration file with its traceback; the last line is
  # the reason.
  lines = str(problem).strip().splitlines() or [type(problem).__name__]
  sys.exit(f"launch.py: {lines[-1].strip()}")


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)
