"""Patterns told by a table: for each block of queries the blocks of keys that it sees, head by head."""

from collections.abc import Iterator
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from formers.attention.pattern import Pattern
from formers.attention.span import BlockSpans, Span
from formers.cached import cached
from formers.places import Spots
from formers.spec.core import Site

NOTHING = -1


class ChosenBlocks(Pattern):
    """Each block of `size` queries sees up to `count` blocks of `size` keys that a table lists for it.

    heads: how many heads have a table each; head h goes by that of h % heads. head: one of these that all go by; None: each
    by its own. What makes the table is up to the kind, which says it in `drawn`; it is made once for equal specs.
    """

    size: int
    count: int
    heads: int = 1
    head: int | None = None

    @property
    def blocks(self) -> int | None:
        """How many blocks of queries see anything; None: any number."""
        raise NotImplementedError

    def drawn(self, blocks: int) -> Tensor:
        """The table of the first `blocks` blocks of queries, (heads, blocks, count), in main memory whatever the default
        device is, since it is kept for all calls; NOTHING where there are fewer."""
        raise NotImplementedError

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.size < 1 or self.count < 1:
            yield f"{self.count} blocks of {self.size} positions show nothing", "size=64, count=3"
        if self.heads < 1 or (site.heads and self.heads > site.heads):
            what = f"there are tables for {self.heads} heads, and heads are {site.heads or 'at least 1'}"
            yield what, f"heads={site.heads or 1}"
        elif self.head is not None and not 0 <= self.head < self.heads:
            yield f"head {self.head} is none of {self.heads}, counted from 0", "head=0"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        own, other = q.pos // self.size, k.pos // self.size
        asked = 1 + int(own.max()) if self.blocks is None and own.numel() else 0
        table = self._table(asked).to(own.device)
        listed = table[head % len(table), own.clamp(max=table.shape[1] - 1)]
        met = reduce(or_, (listed[..., i] == other for i in range(self.count)))
        return met & (own < table.shape[1])

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        return self._counted(q, k, every=False)[0] > 0

    def covers(self, q: Span, k: Span) -> Any:
        if not isinstance(q, BlockSpans) or not isinstance(k, BlockSpans):
            return False  # whole texts: nearly never, and it would be looked up at every step of decoding
        found, wanted = self._counted(q, k, every=True)
        return (found == wanted) & (wanted > 0)

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        if self.blocks is None:
            return super().keeps(pos, after)
        last, block = _last_seeing(self).to(pos.device), pos // self.size
        if not len(last):
            return (pos < 0) & (after < 0)
        return (block < len(last)) & (last[block.clamp(max=len(last) - 1)] >= after // self.size)

    def at_head(self, head: int) -> Pattern:
        return self if self.head is not None or self.heads == 1 else self.replace(head=head % self.heads)

    def _table(self, blocks: int) -> Tensor:
        """A table of these first blocks of queries, or of all that see anything, (heads or 1, blocks, count)."""
        known = self.blocks
        if known is None:
            known = max(64, 1 << blocks.bit_length())  # a power of 2, so that a growing text asks for few tables
        table = _drawn(self.replace(head=None), known)
        return table if self.head is None else table[self.head, None]

    def _counted(self, q: BlockSpans, k: BlockSpans, every: bool) -> tuple[Tensor, Tensor]:
        """Of the pairs of a query's and a key's block between these spans, (N, M) each: how many are seen, by any head or
        by every, and how many there are. Read off a table of sums, at the corners."""
        rows, columns = (_limits(side, self.size) for side in (q, k))
        first, past = int(rows.start.min()), int(rows.past.max())
        table = self._table(past)[:, first:past]
        sums = _sums(_seen(table, every)).to(rows.start.device)
        top, bottom = ((x[:, 0] - first).clamp(0, sums.shape[0] - 1) for x in rows)
        left, right = (x[0].clamp(max=sums.shape[1] - 1) for x in columns)
        strips = sums[bottom] - sums[top]
        found = strips[:, right] - strips[:, left]
        return found, (rows.past - rows.start) * (columns.past - columns.start)


class Limits(NamedTuple):
    """The blocks start, ..., past - 1 that spans lie in; none where start is past."""

    start: Tensor
    past: Tensor


def _limits(spans: BlockSpans, size: int) -> Limits:
    nothing = spans.lo > spans.hi
    start, past = spans.lo // size, spans.hi // size + 1
    return Limits(torch.where(nothing, 0, start), torch.where(nothing, 0, past))


def _seen(table: Tensor, every: bool) -> Tensor:
    """Which blocks of keys (columns) a table (heads, rows, count) lists in each row, for any head or for every: bool."""
    width = _width(table)
    seen = torch.zeros(*table.shape[:2], width + 1, dtype=torch.bool, device=table.device)
    seen.scatter_(2, torch.where(table == NOTHING, width, table), True)
    return (seen.all(0) if every else seen.any(0))[:, :width]


def _width(table: Tensor) -> int:
    """How many blocks of keys there are up to the last that a table lists."""
    return int(table.max()) + 1 if table.numel() else 0


def _sums(seen: Tensor) -> Tensor:
    """(R, C) -> (R + 1, C + 1): how many are seen above and left of each corner."""
    sums = torch.zeros(seen.shape[0] + 1, seen.shape[1] + 1, dtype=torch.int32, device=seen.device)
    sums[1:, 1:] = seen.cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    return sums


@cached(512)
def _drawn(pattern: ChosenBlocks, blocks: int) -> Tensor:
    return pattern.drawn(blocks)


@cached(512)
def _last_seeing(pattern: ChosenBlocks) -> Tensor:
    """For each block of keys the last block of queries that sees it in any head, or NOTHING."""
    table = pattern._table(pattern.blocks or 0)
    last = torch.full((_width(table) + 1,), NOTHING, device=table.device)
    row = torch.arange(table.shape[1], device=table.device)[None, :, None].expand_as(table)
    listed = torch.where(table == NOTHING, len(last) - 1, table)
    return last.scatter_reduce(0, listed.flatten(), row.flatten(), "amax")[:-1]
