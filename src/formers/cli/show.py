"""`formers show`: a model's parts, what they cost, and what its attention sees."""

import argparse
from pathlib import Path
from typing import Any

from formers.cli.model import chosen_model, declare_model
from formers.cli.parser import Parser
from formers.cli.terminal import Terminal
from formers.report.cost import Cost, cost
from formers.report.cost_table import cost_caption, cost_table
from formers.report.drawing import draw, squares
from formers.report.parts import Look, looks
from formers.report.tree import spec_tree

LENGTH = 1024  # for models that have no longest length of their own
EXAMPLES = """\
  formers show gpt2
  formers show llama dim=8192 depth=80 heads=64 kv_heads=8 hidden=28672 --length 4096
  formers show gpt2 --set "blocks[*].sublayers[0].pattern=Causal() & Window(8)" --plot pattern.png
"""


def declare(parser: Parser) -> None:
    """A model, and how to look at it."""
    declare_model(parser)
    parser.add_argument("--length", type=int, metavar="N", help="tokens to cost and draw at (the model's own, or 1024)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw the attention patterns into a picture")
    parser.add_argument("--json", action="store_true", help="print the spec as JSON instead, for a file of your own")


def run(options: argparse.Namespace) -> None:
    """Print the tree, the costs and the drawings."""
    spec = chosen_model(options)
    length = (spec.max_length or LENGTH) if options.length is None else options.length
    costs = cost(spec, length)
    seen = looks(spec)
    if options.json:
        print(spec.to_json(), end="")
    else:
        _print(spec, costs, seen)
    if options.plot:
        from formers.report.picture import save_picture

        save_picture(options.plot, spec.name, seen, length)


def _print(spec: Any, costs: Cost, seen: list[Look]) -> None:
    terminal = Terminal()
    terminal.print(spec_tree(spec))
    terminal.print()
    terminal.print(cost_table(costs))
    terminal.print(cost_caption(costs), style="dim")
    for look in seen:
        for square in squares(look, costs.length):
            more = f" and {len(look.paths) - 1} more like it" if len(look.paths) > 1 else ""
            terminal.print(f"\n{look.paths[0]}{more}", style="cyan")
            terminal.print(draw(square, ascii_only=terminal.options.ascii_only))
