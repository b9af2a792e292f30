"""`formers show`: a model's parts, what they cost, and what its attention sees, with or without a text."""

import argparse
from pathlib import Path
from typing import Any

from formers.cli.model import chosen_model, declare_model
from formers.cli.parser import Parser, picture_file
from formers.cli.terminal import Terminal
from formers.errors import FormersError
from formers.family import MEMBERS
from formers.report.cost import Cost, cost
from formers.report.cost_table import cost_caption, cost_table
from formers.report.drawing import draw, squares
from formers.report.no_pairs import undrawn
from formers.report.parts import Look, learns_spans, looks
from formers.report.tree import spec_tree

LENGTH = 1024  # for models that have no longest length of their own
EXAMPLES = """\
  formers show gpt2
  formers show llama dim=8192 depth=80 heads=64 kv_heads=8 hidden=28672 --length 4096
  formers show gpt2 --set "blocks[*].sublayers[0].pattern=Causal() & Window(8)" --plot pattern.png
  formers show runs/reformer --text "Which of these words meet?" --layer "blocks[0].blocks[2].sublayers[0]" --head 1
"""


def declare(parser: Parser) -> None:
    """A model, and how to look at it."""
    declare_model(parser)
    parser.add_argument("--length", type=int, metavar="N", help="tokens to cost and draw at (the model's own, or 1024)")
    told = "also draw into a picture: the attention patterns, or which tokens of the text meet"
    parser.add_argument("--plot", type=picture_file, metavar="FILE.png", help=told)
    parser.add_argument("--json", action="store_true", help="print the spec as JSON instead, for a file of your own")
    told = "draw which tokens of this text meet where content chooses them: as a run has learned, or at random weights"
    parser.add_argument("--text", metavar="TEXT", help=told)
    parser.add_argument("--layer", metavar="PATH", help="of --text: the attention to draw (the first that chooses)")
    parser.add_argument("--head", type=int, metavar="N", help="of --text: the head to draw (0; in a picture, all)")


def run(options: argparse.Namespace) -> None:
    """Print the tree, the costs and the drawings; or what a text does to attention."""
    _require_fitting(options)
    spec = chosen_model(options, actors=options.text is None)
    if options.text is not None:
        from formers.cli.show_text import show_text

        show_text(options, spec)
        return
    length = (spec.max_length or LENGTH) if options.length is None else options.length
    costs = cost(spec, length)
    seen = looks(spec)
    if options.json:
        print(spec.to_json(), end="")
    else:
        _print(spec, costs, seen)
        _print_spans(options, spec, length)
    if options.plot:
        from formers.report.picture import CELLS, save_picture

        panels = [square for look in seen for square in squares(look, length, CELLS)]
        told = [] if panels else [*undrawn(spec)]
        if told:
            raise FormersError(f"nothing of {spec.name} can be drawn. {told[0]}; leave --plot out")
        save_picture(options.plot, spec.name, panels)


def _require_fitting(options: argparse.Namespace) -> None:
    """Raise FormersError for options that say nothing beside others."""
    if options.text is None:
        for name in ("layer", "head"):
            if getattr(options, name) is not None:
                raise FormersError(f"--{name} says what to draw of a text; give --text as well")
    elif options.length is not None:
        raise FormersError("a text has a length of its own; leave out --length or --text")
    elif options.json:
        raise FormersError("a spec holds no text; leave out --json or --text")


def _print(spec: Any, costs: Cost, seen: list[Look]) -> None:
    terminal = Terminal()
    terminal.print(spec_tree(spec))
    terminal.print()
    terminal.print(cost_table(costs))
    terminal.print(cost_caption(costs), style="dim")
    for look in seen:
        for square in squares(look, costs.length):
            terminal.print(f"\n{_and_more(look.paths)}", style="cyan")
            terminal.print(draw(square, ascii_only=terminal.options.ascii_only))
        if look.by_content is not None:
            terminal.print(f"\n{_and_more(look.paths)}", style="cyan")
            terminal.print(f"{look.pattern!r}, of which the pairs are chosen by content", style="bold")
            terminal.print(f"by {look.by_content!r}{_how_to_draw(look)}")
    for told, paths in undrawn(spec).items():
        terminal.print(f"\n{_and_more(paths)}", style="cyan")
        terminal.print(told)


def _and_more(paths: tuple[str, ...]) -> str:
    """The first of some paths, and how many others there are."""
    return paths[0] + (f" and {len(paths) - 1} more like it" if len(paths) > 1 else "")


def _print_spans(options: argparse.Namespace, spec: Any, length: int) -> None:
    """What spans a run has learned; of changed specs there are no weights to tell it."""
    run = Path(options.model)
    if options.assignments or options.model in MEMBERS or not run.is_dir() or not learns_spans(spec):
        return
    from formers.report.span_table import span_table
    from formers.train import load_model

    terminal = Terminal()
    terminal.print()
    terminal.print(span_table(load_model(run), length))


def _how_to_draw(look: Look) -> str:
    if look.draws_pairs:
        return '; --text "..." draws which tokens of a text meet'
    return ": each block meets itself and a soft mixture of others, which no square of pairs can show"
