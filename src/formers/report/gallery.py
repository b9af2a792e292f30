"""A picture of what attention sees in every member, and a page that shows them all."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from formers.data.atomic import replacing
from formers.data.tokenizer import ByteTokenizer
from formers.family.registry import Member
from formers.report.drawing import Square, squares
from formers.report.meeting import pieces, square_of
from formers.report.no_pairs import undrawn
from formers.report.parts import looks
from formers.report.picture import CELLS, save_picture
from formers.report.selection import selections
from formers.train.task import untold

TEXT = "what meets what is told by what it says"
VOCAB = 256  # bytes
MOST = 3  # panels of a member: heads that draw by chance all differ
HEADS = 2  # of a layer that chooses by content, where each head draws otherwise
PAGE = "README.md"
OPENING = """\
# What each member sees

Queries down, keys across; a cell is as dark as the share of its pairs that is seen. The models are small ones, with the
patterns of the large. Made by `formers gallery {folder}`.
"""


def draw_gallery(folder: Path, members: Sequence[Member], tick: Callable[[float], object] = untold) -> Path:
    """Write NAME.png for each member whose attention can be drawn, and a page of all; where the page is.

    tick: told the share that is done, after each member. Raises DataError if something cannot be written.
    """
    entries = []
    for done, member in enumerate(members, 1):
        entries.append(_entry(folder, member))
        tick(done / len(members))
    page = folder / PAGE
    with replacing(page) as (stream,):
        stream.write("\n".join([OPENING.format(folder=folder.as_posix()), *entries]).encode())
    return page


def _entry(folder: Path, member: Member) -> str:
    words = {"vocab": VOCAB} if "vocab" in member.arguments else {}
    spec = member.make(**{**member.small, **words})
    panels = _panels(spec)
    if panels:
        save_picture(folder / f"{member.name}.png", member.title, panels[:MOST])
    heading = f"## {member.title} ({member.year})\n\n`{member.name}`, {member.paper}, attention costs {member.cost}.\n"
    shown = f"![{member.title}]({member.name}.png)\n" if panels else f"{_why_not(spec)}\n"
    more = f"\n{MOST} of the {len(panels)} kinds of heads.\n" if len(panels) > MOST else ""
    return f"{heading}\n{shown}{more}"


def _panels(spec: Any) -> list[Square]:
    """What positions decide, and what content decides of one text in a model whose weights are random."""
    seen = looks(spec)
    panels = [square for look in seen for square in squares(look, spec.max_length or CELLS, CELLS)]
    if not any(look.draws_pairs for look in seen):
        return panels
    tokenizer = ByteTokenizer(special=())
    tokens = tokenizer.encode(TEXT)[: spec.max_length]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chosen = selections(spec.build().eval(), tokens)
    names = pieces(tokenizer, tokens)
    return panels + [square_of(chosen[0], head, names, CELLS) for head in range(min(HEADS, chosen[0].heads))]


def _why_not(spec: Any) -> str:
    if any(look.by_content is not None for look in looks(spec)):
        return "Each block meets itself and a soft mixture of others, which no square of pairs can show."
    return " ".join(f"{told}." for told in undrawn(spec)) or "It has no attention whose pairs could be drawn."
