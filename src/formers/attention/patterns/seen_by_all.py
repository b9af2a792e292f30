"""Tokens that see all and are seen by all: the first of a text, or those that carry a mark."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans, Span
from formers.places import Spots
from formers.spec.core import Site


class Global(Pattern):
    """The `count` positions from `first` on see every key, and every query sees them. In a decoder, under `Causal()`: it
    sees them.

    Big Bird's global tokens (ITC), Zaheer et al. 2020, arXiv:2007.14062.
    """

    count: int
    first: int = 0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.count < 1:
            yield f"{self.count} tokens are not seen by any", "count=1"
        if self.first < 0:
            yield f"no token stands at {self.first}: positions count from 0", "first=0"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return self._within(k) | self._within(q)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        reaches: Tensor = self._touched(k) | self._touched(q)
        return reaches

    def covers(self, q: Span, k: Span) -> Any:
        return self._filled(k) | self._filled(q)

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        return ((pos >= self.first) & (pos < self._end)) | (after < self._end)

    @property
    def _end(self) -> int:
        return self.first + self.count

    def _within(self, spots: Spots) -> Tensor:
        return (spots.pos >= self.first) & (spots.pos < self._end)

    def _touched(self, span: Span) -> Any:
        return (span.hi >= self.first) & (span.lo < self._end)

    def _filled(self, span: Span) -> Any:
        return (span.lo >= self.first) & (span.hi < self._end)


class SeenByAll(Pattern):
    """Keys that carry a mark above 0 are seen by every query: `model(tokens, marks={"global": ...})`."""

    mark: str = "global"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return marked(k, self.mark) & (q.pos == q.pos)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        return (k.range(self._rank)[0] == 0) & (q.lo == q.lo)

    def covers(self, q: Span, k: Span) -> Any:
        return (k.range(self._rank)[1] == 0) & (q.lo == q.lo) if isinstance(k, BlockSpans) else False

    def key_order(self, to: Spots) -> Tensor | None:
        return self._rank(to)

    def _rank(self, of: Spots) -> Tensor:
        """0 where there is a mark, 1 elsewhere."""
        return (~marked(of, self.mark)).long()


class SeesAll(Pattern):
    """Queries that carry a mark above 0 see every key: `model(tokens, marks={"global": ...})`."""

    mark: str = "global"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return marked(q, self.mark) & (k.pos == k.pos)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        return (q.range(self._rank)[0] == 0) & (k.lo == k.lo)

    def covers(self, q: Span, k: Span) -> Any:
        return (q.range(self._rank)[1] == 0) & (k.lo == k.lo) if isinstance(q, BlockSpans) else False

    def query_order(self, at: Spots) -> Tensor | None:
        return self._rank(at)

    def _rank(self, of: Spots) -> Tensor:
        """0 where there is a mark, 1 elsewhere."""
        return (~marked(of, self.mark)).long()


def marked(spots: Spots, mark: str) -> Tensor:
    """Where the mark is above 0; raises ValueError where the call did not give it."""
    if mark not in spots.marks:
        raise ValueError(f"the pattern goes by the mark {mark!r}: call the model with marks={{{mark!r}: ...}}")
    return spots.marks[mark] > 0
