"""`formers bench`: speed, ours beside a rival's."""

import argparse

from formers.bench import cases  # noqa: F401 - registers them
from formers.bench.registry import BENCHES
from formers.cli.parser import Parser
from formers.cli.suite import declare_suite, run_named

EXAMPLES = """\
  formers bench
  formers bench decode --json decode.json
"""


def declare(parser: Parser) -> None:
    """A suite."""
    declare_suite(parser)


def run(options: argparse.Namespace) -> int:
    """Run it."""
    return run_named(BENCHES, options)
