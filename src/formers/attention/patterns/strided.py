"""Patterns of a stride, that of Sparse Transformers and that of dilated windows, and of the cells that sum up a block."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans, Span
from formers.places import Spots
from formers.spec.core import Site


class Strided(Pattern):
    """Keys at a multiple of `stride` positions from the query: the columns of a text that is laid out in rows of so many.

    `Causal() & Strided(l)` is the second head of the strided pattern of Sparse Transformers, Child et al. 2019,
    arXiv:1904.10509; its first is `Causal() & Window(l)`, its merged head `Causal() & (Window(l) | Strided(l))`.
    """

    stride: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.stride < 1:
            yield f"no two positions are a multiple of {self.stride} apart", "stride=128"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return q.pos % self.stride == k.pos % self.stride

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        (q_least, q_most), (k_least, k_most) = q.range(self._column), k.range(self._column)
        return (q_least <= k_most) & (k_least <= q_most)

    def covers(self, q: Span, k: Span) -> Any:
        if not isinstance(q, BlockSpans) or not isinstance(k, BlockSpans):
            return self.stride == 1
        (q_least, q_most), (k_least, k_most) = q.range(self._column), k.range(self._column)
        return (q_least == q_most) & (k_least == k_most) & (q_least == k_least)

    def query_order(self, at: Spots) -> Tensor | None:
        return self._column(at)

    def key_order(self, to: Spots) -> Tensor | None:
        return self._column(to)

    def _column(self, of: Spots) -> Tensor:
        return of.pos % self.stride


class Summary(Pattern):
    """Keys at the places `first`, ..., `first + count - 1` of each block of `size` positions.

    `Causal() & Summary(l, l - c, c)` is the second head of the fixed pattern of Sparse Transformers, Child et al. 2019,
    arXiv:1904.10509; its first is `Causal() & Blocks(l)`. Several heads are to have different places. Alone it leaves the
    queries before the first of these places with nothing to see: `Causal() & (Window(1) | Summary(l, l - c, c))`.
    """

    size: int
    first: int
    count: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.count < 1 or self.first < 0 or self.first + self.count > self.size:
            last = self.first + self.count - 1
            what = (
                f"blocks of {self.size} have the places 0 to {self.size - 1}, and {self.first} to {last} were asked for"
            )
            yield what, "Summary(size=128, first=120, count=8)"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return self._is_cell(k.pos) & (q.pos == q.pos)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        return (k.range(self._rank)[0] == 0) & (q.hi >= q.lo)

    def covers(self, q: Span, k: Span) -> Any:
        if not isinstance(k, BlockSpans):
            return False
        return (k.range(self._rank)[1] == 0) & (q.lo == q.lo)

    def key_order(self, to: Spots) -> Tensor | None:
        return self._rank(to)

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        return self._is_cell(pos) & (after == after)

    def _is_cell(self, pos: Tensor) -> Tensor:
        place = pos % self.size
        return (place >= self.first) & (place < self.first + self.count)

    def _rank(self, of: Spots) -> Tensor:
        """0 for a cell, 1 for others."""
        return (~self._is_cell(of.pos)).long()
