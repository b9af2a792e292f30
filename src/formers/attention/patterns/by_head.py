"""Heads of one layer that see by different rules."""

from collections.abc import Iterator
from functools import reduce
from operator import and_, or_
from typing import Any

from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans, Span
from formers.places import Spots
from formers.spec.core import Site


class ByHead(Pattern):
    """A pattern for each head, taken in turn: head h sees by patterns[h % len(patterns)]."""

    patterns: tuple[Pattern, ...]

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not self.patterns:
            yield "there is no pattern for any head", "patterns=(Window(256),)"
        elif site.heads and len(self.patterns) > site.heads:
            what = f"there are {len(self.patterns)} patterns and {site.heads} heads, so some would never be used"
            yield what, f"heads={len(self.patterns)}"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        turn = head % len(self.patterns)
        return reduce(or_, ((turn == i) & each.visible(q, k, head) for i, each in enumerate(self.patterns)))

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        return reduce(or_, (each.reaches(q, k) for each in self.patterns))

    def covers(self, q: Span, k: Span) -> Any:
        return reduce(and_, (each.covers(q, k) for each in self.patterns))

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        return reduce(or_, (each.keeps(pos, after) for each in self.patterns))

    def at_head(self, head: int) -> Pattern:
        return self.patterns[head % len(self.patterns)].at_head(head)

    @property
    def causal(self) -> bool:
        return all(each.causal for each in self.patterns)

    @property
    def horizon(self) -> int | None:
        known = [each.horizon for each in self.patterns]
        return None if None in known else max(h for h in known if h is not None)
