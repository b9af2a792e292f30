"""`formers show --text` of a model whose tokens halt or leave: how many steps or blocks each token of a text took."""

import argparse
from typing import Any

from formers.cli.terminal import Terminal
from formers.report.ponder import bare, drawn, pondered, save_ponder


def show_steps(options: argparse.Namespace, model: Any, tokens: list[int], names: list[str]) -> None:
    """Draw the steps of each depth that lets tokens halt, and as a picture where one is asked for."""
    terminal, found, names = Terminal(), pondered(model, tokens), list(bare(names))
    if terminal.options.ascii_only:
        names = [name.encode("ascii", "replace").decode() for name in names]
    for ponder in found:
        terminal.print(ponder.path, style="cyan", markup=False)
        terminal.print(drawn(ponder, names))
        terminal.print(ponder.told, markup=False)
    if options.plot:
        save_ponder(options.plot, model.spec.name, found, names)
