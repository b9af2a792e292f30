"""What `formers bench` and `formers claim` share: running a suite of cases by its name."""

import argparse
from pathlib import Path

from formers.bench.registry import Registry
from formers.bench.runner import missed, run_suite
from formers.cli.parser import Parser
from formers.cli.terminal import Terminal


def declare_suite(parser: Parser) -> None:
    """The name of a suite, and how to run it."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="the suite to run; without one, all are listed")
    parser.add_argument("--only", metavar="WORDS", help="those of its cases alone whose title has these words")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here, one row for each")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of PyTorch")
    parser.add_argument("--quick", action="store_true", help="shapes too small to mean anything: does it run?")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a goal is not met")


def run_named(
    registry: Registry, options: argparse.Namespace, *, data: Path | None = None, out: Path | None = None
) -> int:
    """Run the suite that was named; the exit code. Without a name, list the suites with their cases."""
    if options.name is None:
        for name, cases in registry.suites().items():
            print(f"{name}: {'; '.join(case.title for case in cases)}")
        return 0
    rows = run_suite(
        registry,
        options.name,
        only=options.only,
        console=Terminal(),
        json=options.json,
        threads=options.threads,
        quick=options.quick,
        data=data,
        folder=out,
    )
    return 1 if options.strict and missed(rows) else 0
