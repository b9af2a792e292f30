"""`formers check`: everything that is wrong with a spec file."""

import argparse
from typing import Any

from formers.cli.model import read_spec, require_buildable
from formers.cli.parser import Parser
from formers.control.decision import DecisionTransformer
from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.model import TokenModel
from formers.train.spec import TrainSpec

EXAMPLES = """\
  formers show llama depth=4 dim=256 heads=4 hidden=688 --json > mine.json
  formers check mine.json
"""


def declare(parser: Parser) -> None:
    """One file, or several."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="a model's spec, or a training spec, as JSON")


def run(options: argparse.Namespace) -> int:
    """Print 'fine', or raise with all problems of the first file that has any."""
    wrong = []
    for file in options.files:
        try:
            print(f"{file}: {_verdict(read_spec(file))}")
        except ConfigError as error:
            wrong.append(f"{file}: {error}" if file not in str(error) else str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return 0


def _verdict(spec: Any) -> str:
    if isinstance(spec, TrainSpec):
        spec.check()
        return "fine, a training spec"
    if not isinstance(spec, (TokenModel, EncoderDecoder, DecisionTransformer)):
        return f"fine as far as it goes: {type(spec).__name__} is a part, and is checked within a model"
    require_buildable(spec)
    return f"fine, {spec.name}"
