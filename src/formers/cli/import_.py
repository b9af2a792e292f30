"""`formers import`: a model in Hugging Face's format, as a run folder of ours."""

import argparse
from pathlib import Path

from formers.cli.parser import Parser
from formers.cli.progress import waiting
from formers.hub import import_folder

EXAMPLES = """\
  formers import ~/models/gpt2 --out runs/gpt2
  formers generate runs/gpt2 --prompt "The Transformer"
"""


def declare(parser: Parser) -> None:
    """From where, to where."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="config.json, safetensors, and perhaps tokenizer.json")
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="the run folder to make")


def run(options: argparse.Namespace) -> None:
    """Import, and tell what was found."""
    with waiting(f"reading {options.folder}"):
        imported = import_folder(options.folder, options.out)
    print(f"{options.out}: {imported}")
