"""`formers export`: a run, in Hugging Face's format."""

import argparse
from pathlib import Path

from formers.cli.parser import Parser
from formers.cli.progress import waiting
from formers.hub import export

EXAMPLES = """\
  formers export runs/notes --out notes-gpt2
"""


def declare(parser: Parser) -> None:
    """From where, to where."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run, or one of its checkpoints")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the folder to make")


def run(options: argparse.Namespace) -> None:
    """Export, and tell where to."""
    with waiting(f"writing {options.out}"):
        export(options.run, options.out)
    print(f"{options.out}: {', '.join(sorted(file.name for file in options.out.iterdir()))}")
