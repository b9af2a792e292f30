"""`formers gallery`: a picture of what attention sees in every member."""

import argparse
from pathlib import Path

from formers.cli.parser import Parser
from formers.cli.progress import ticking
from formers.cli.terminal import Terminal
from formers.family import MEMBERS

EXAMPLES = "  formers gallery docs/gallery\n"


def declare(parser: Parser) -> None:
    """Where it goes."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="for the pictures and the page that shows them")


def run(options: argparse.Namespace) -> None:
    """Draw them all, by year."""
    from formers.report.gallery import draw_gallery

    members = sorted(MEMBERS.values(), key=lambda member: (member.year, member.name))
    terminal = Terminal()
    with ticking("drawing") as tick:
        page = draw_gallery(options.folder, members, tick)
    terminal.print(f"{len(members)} members: {page}", highlight=False)
