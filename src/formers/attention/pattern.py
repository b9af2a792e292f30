"""Patterns: which keys a query may see, as an algebra over positions.

`visible` is the meaning, exact, pair by pair. The rest serves planning: `reaches` and `covers` bound it over blocks of
pairs, `query_order` and `key_order` say in what order of the tokens it is made of few blocks. Over-estimating `reaches`,
under-estimating `covers`, or another order cost time and never change a result.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from formers.attention.span import BlockSpans, Span
from formers.places import Spots
from formers.spec.core import Site, Spec


class Pattern(Spec):
    """A rule over pairs of places. Joined by & (both) and | (either)."""

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        """May the query see the key? Broadcasts q against k, and head (H, 1, 1) where heads differ; bool."""
        raise NotImplementedError

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        """May any query of these blocks (N, 1) see any key of those (1, M)? (N, M); False only if surely none."""
        return (q.hi >= q.lo) & (k.hi >= k.lo)

    def covers(self, q: Span, k: Span) -> Any:
        """Does every query see every key, in any order of the blocks? True only if surely all; a bool or (N, M)."""
        return False

    def query_order(self, at: Spots) -> Tensor | None:
        """A whole number told of each place: sorted by it, and then by position, queries form blocks that see alike.
        None: as they stand."""
        return None

    def key_order(self, to: Spots) -> Tensor | None:
        """The same of keys: sorted by it, those that are seen together stand together."""
        return None

    def at_head(self, head: int) -> "Pattern":
        """What this head sees, as a pattern that is the same for all heads."""
        return self

    @property
    def causal(self) -> bool:
        """True if no query sees a later key."""
        return False

    @property
    def horizon(self) -> int | None:
        """Keys this far back or further are never seen again by later queries; None: any may be."""
        return None

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        """May a query that stands at `after` or later see a key at `pos`? They broadcast; False only if surely none."""
        if self.horizon is None:
            return (pos >= 0) | (after >= 0)
        return pos > after - self.horizon

    def __and__(self, other: "Pattern") -> "Pattern":
        return Both(self, other) if isinstance(other, Pattern) else NotImplemented

    def __or__(self, other: "Pattern") -> "Pattern":
        return Either(self, other) if isinstance(other, Pattern) else NotImplemented


def by_heads(pattern: Pattern, heads: int) -> dict[Pattern, list[int]]:
    """The different patterns of so many heads, each the same for all that have it, and which heads those are."""
    found: dict[Pattern, list[int]] = {}
    for head in range(heads):
        found.setdefault(pattern.at_head(head), []).append(head)
    return found


class Both(Pattern):
    """left & right: seen under both rules."""

    left: Pattern
    right: Pattern

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return self.left.visible(q, k, head) & self.right.visible(q, k, head)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        return self.left.reaches(q, k) & self.right.reaches(q, k)

    def covers(self, q: Span, k: Span) -> Any:
        return self.left.covers(q, k) & self.right.covers(q, k)

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        return self.left.keeps(pos, after) & self.right.keeps(pos, after)

    def at_head(self, head: int) -> Pattern:
        return Both(self.left.at_head(head), self.right.at_head(head))

    @property
    def causal(self) -> bool:
        return self.left.causal or self.right.causal

    @property
    def horizon(self) -> int | None:
        known = [h for h in (self.left.horizon, self.right.horizon) if h is not None]
        return min(known, default=None)

    def __repr__(self) -> str:
        sides = (f"({side!r})" if isinstance(side, Either) else repr(side) for side in (self.left, self.right))
        return " & ".join(sides)


class Either(Pattern):
    """left | right: seen under at least one rule."""

    left: Pattern
    right: Pattern

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return self.left.visible(q, k, head) | self.right.visible(q, k, head)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        return self.left.reaches(q, k) | self.right.reaches(q, k)

    def covers(self, q: Span, k: Span) -> Any:
        return self.left.covers(q, k) | self.right.covers(q, k)

    def keeps(self, pos: Tensor, after: Tensor) -> Tensor:
        return self.left.keeps(pos, after) | self.right.keeps(pos, after)

    def at_head(self, head: int) -> Pattern:
        return Either(self.left.at_head(head), self.right.at_head(head))

    @property
    def causal(self) -> bool:
        return self.left.causal and self.right.causal

    @property
    def horizon(self) -> int | None:
        if self.left.horizon is None or self.right.horizon is None:
            return None
        return max(self.left.horizon, self.right.horizon)

    def __repr__(self) -> str:
        return f"{self.left!r} | {self.right!r}"


class Everything(Pattern):
    """Every query sees every key."""

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return (q.pos == q.pos) & (k.pos == k.pos)

    def covers(self, q: Span, k: Span) -> Any:
        return (q.lo == q.lo) & (k.lo == k.lo)


class Causal(Pattern):
    """A query sees itself and what stands before it."""

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return k.pos <= q.pos

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        reaches: Tensor = k.lo <= q.hi
        return reaches

    def covers(self, q: Span, k: Span) -> Any:
        return k.hi <= q.lo

    @property
    def causal(self) -> bool:
        return True


class Window(Pattern):
    """Keys nearer than `size` on either side: `Causal() & Window(w)` sees w keys, the query's own included.

    This is Mistral's convention (arXiv:2310.06825). Longformer's "window 512" (arXiv:2004.05150) is Window(257).
    """

    size: int

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.size < 1:
            yield f"a window of {self.size} sees nothing, not even the query's own key", "size=1"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return (q.pos - k.pos).abs() < self.size

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        reaches: Tensor = (q.lo - k.hi < self.size) & (k.lo - q.hi < self.size)
        return reaches

    def covers(self, q: Span, k: Span) -> Any:
        return (q.hi - k.lo < self.size) & (k.hi - q.lo < self.size)

    @property
    def horizon(self) -> int | None:
        return self.size


class Blocks(Pattern):
    """A query sees its own block of `size` positions, and so many whole blocks before and after it.

    `Causal() & Blocks(size, before=1)` is the local attention of Reformer (arXiv:2001.04451), without its first block
    looking back at the last.
    """

    size: int
    before: int = 0
    after: int = 0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.size < 1:
            yield f"blocks of {self.size} positions hold nothing", "size=1"
        if self.before < 0 or self.after < 0:
            yield f"there cannot be {min(self.before, self.after)} blocks beside a query's own", "before=1"

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        back = q.pos // self.size - k.pos // self.size
        return (back <= self.before) & (back >= -self.after)

    def reaches(self, q: BlockSpans, k: BlockSpans) -> Tensor:
        reaches: Tensor = q.lo // self.size <= k.hi // self.size + self.before
        return reaches & (k.lo // self.size <= q.hi // self.size + self.after)

    def covers(self, q: Span, k: Span) -> Any:
        back = q.hi // self.size - k.lo // self.size <= self.before
        return back & (k.hi // self.size - q.lo // self.size <= self.after)

    @property
    def horizon(self) -> int | None:
        return (1 + self.before) * self.size


class Same(Pattern):
    """A query sees the keys whose mark equals its own: documents packed into one row stay apart."""

    mark: str

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        for side in (q, k):
            if self.mark not in side.marks:
                raise ValueError(
                    f"{self!r} needs the mark {self.mark!r}: call the model with marks={{{self.mark!r}: ...}}"
                )
        return q.marks[self.mark] == k.marks[self.mark]
