"""What a global and a long input see of each other. ETC, Ainslie et al. 2020, arXiv:2004.08483."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans, Span
from formers.places import Spots
from formers.sides import GLOBAL, SEGMENT, are_global, in_one_segment, segments
from formers.spec.core import Site

Piece = Literal["g2l", "l2g"]


class GlobalLocal(Pattern):
    """Four pieces: global tokens see each other (g2g), and long ones (g2l), which see them (l2g); long tokens see those
    at most `radius` away (l2l), so 2 * radius + 1 of them.

    hard: pieces in which only tokens of one segment see each other. Which tokens are global, and of which segment, is
    told by the marks "global" and "segment" (`formers.sides`); without marks all tokens are long.
    """

    radius: int
    hard: tuple[Piece, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        return GLOBAL, SEGMENT

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.radius < 1:
            yield f"a radius of {self.radius} leaves a long token no neighbour to see", "radius=84"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        near = (q.pos - k.pos).abs() <= self.radius
        mine, other = are_global(q), are_global(k)
        from_long = torch.where(other, self._across("l2g", q, k), near)
        return torch.where(mine, other | self._across("g2l", q, k), from_long)

    def _across(self, piece: Piece, q: Spots, k: Spots) -> Tensor:
        """What may be seen across the two inputs."""
        if piece in self.hard:
            return in_one_segment(q, k)
        return (q.pos == q.pos) & (k.pos == k.pos)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        mine, others = Block(q), Block(k)
        near = (q.lo - k.hi <= self.radius) & (k.lo - q.hi <= self.radius)
        overlap = (mine.first <= others.last) & (others.first <= mine.last) & (mine.last >= 0)
        across = {piece: overlap if piece in self.hard else near | ~near for piece in ("g2l", "l2g")}
        seen: Tensor = mine.has_global & (others.has_global | others.has_long & across["g2l"])
        return seen | mine.has_long & (others.has_long & near | others.has_global & across["l2g"])

    def covers(self, q: Span, k: Span) -> Any:
        if not isinstance(q, BlockSpans) or not isinstance(k, BlockSpans):
            return False
        mine, others = Block(q), Block(k)
        near = (q.hi - k.lo <= self.radius) & (k.hi - q.lo <= self.radius)
        alike = (mine.first == mine.last) & (others.first == others.last) & (mine.first == others.first)
        across = {piece: alike & (mine.first >= 0) if piece in self.hard else near | ~near for piece in ("g2l", "l2g")}
        blind = mine.has_long & others.has_long & ~near
        blind = blind | mine.has_global & others.has_long & ~across["g2l"]
        return ~(blind | mine.has_long & others.has_global & ~across["l2g"])

    def query_order(self, at: Spots) -> Tensor | None:
        return _rank(at)

    def key_order(self, to: Spots) -> Tensor | None:
        return _rank(to)


class Block:
    """What the tokens of blocks are: whether any is global, or long, and their first and last segments."""

    def __init__(self, span: BlockSpans) -> None:
        least, most = span.range(_rank)
        self.has_global, self.has_long = least == 0, most == 1
        self.first, self.last = span.range(segments)


def _rank(at: Spots) -> Tensor:
    """0 for a global token, 1 for a long one."""
    return (~are_global(at)).long()
