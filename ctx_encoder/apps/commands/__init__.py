"""One module for each subcommand of `ctx-encoder`: `add_arguments` and `run`."""
