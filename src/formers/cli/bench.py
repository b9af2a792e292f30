"""`formers bench`: speed, ours beside a rival's."""

import argparse
from pathlib import Path

from formers.bench import cases  # noqa: F401 - registers them
from formers.bench.registry import BENCHES
from formers.cli.parser import Parser
from formers.cli.suite import declare_suite, run_named

EXAMPLES = """\
  formers bench
  formers bench decode --json decode.json
  formers bench million --data book.txt
"""


def declare(parser: Parser) -> None:
    """A suite, and the data for one that reads some."""
    declare_suite(parser)
    parser.add_argument("--data", type=Path, metavar="FILE", help="text for `million` (the standard library's source)")


def run(options: argparse.Namespace) -> int:
    """Run it."""
    return run_named(BENCHES, options, data=options.data)
