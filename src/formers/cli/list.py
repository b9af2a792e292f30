"""`formers list`: every member of the family."""

import argparse

from rich.table import Table

from formers.cli.parser import Parser
from formers.cli.terminal import Terminal
from formers.family import ACTORS, MEMBERS
from formers.report.abilities import causal, streams_exactly

EXAMPLES = "  formers list\n"


def declare(parser: Parser) -> None:
    """It has no options."""


def run(options: argparse.Namespace) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("member", "model", "paper", "year", "cost", "causal", "exact streaming"):
        table.add_column(heading, justify="right" if heading == "year" else "left")
    for member in sorted((MEMBERS | ACTORS).values(), key=lambda member: (member.year, member.name)):
        spec = member.make()
        told = (member.name, member.title, member.paper, str(member.year), member.cost)
        table.add_row(*told, causal(spec), streams_exactly(spec))
    terminal = Terminal()
    terminal.print(table)
    terminal.print(
        "\ncost: of attention, as the length n grows. causal: no output sees a later token.\n"
        "exact streaming: decoding step by step gives what one pass gives. target: the side that writes.\n"
        "causal but not exact: later tokens are never seen, but help to decide which earlier ones meet.",
        style="dim",
    )
