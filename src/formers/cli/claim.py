"""`formers claim`: the experiments that show what the papers claim."""

import argparse
from pathlib import Path

from formers.bench.registry import CLAIMS
from formers.claim import cases  # noqa: F401 - registers them
from formers.cli.parser import Parser
from formers.cli.suite import declare_suite, run_named

EXAMPLES = """\
  formers claim
  formers claim tinyshakespeare --data input.txt --json tinyshakespeare.json
"""


def declare(parser: Parser) -> None:
    """A suite, the data that it needs, and where to leave its files."""
    declare_suite(parser)
    parser.add_argument("--data", type=Path, metavar="PATH", help="what the suite says it needs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to leave files (runs/claim-NAME)")


def run(options: argparse.Namespace) -> int:
    """Run it."""
    return run_named(CLAIMS, options, data=options.data, out=options.out)
