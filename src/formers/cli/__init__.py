"""The command line: one file per subcommand, each with `declare(parser)` and `run(options)`."""

from formers.cli.main import main

__all__ = ["main"]
