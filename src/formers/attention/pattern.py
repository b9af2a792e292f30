"""Patterns: which keys a query may see, as an algebra over positions.

`visible` is the meaning, exact, pair by pair. `reaches` and `covers` bound it over blocks so that work can be
planned: over-estimating `reaches`, or under-estimating `covers`, costs time and never changes a result.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from formers.places import Spots
from formers.spec.core import Site, Spec


class Pattern(Spec):
    """A rule over pairs of places. Joined by & (both) and | (either)."""

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        """May the query see the key? Broadcasts q against k, and head (H, 1, 1) where heads differ; bool."""
        raise NotImplementedError

    def reaches(self, q_lo: Tensor, q_hi: Tensor, k_lo: Tensor, k_hi: Tensor) -> Tensor:
        """May any query standing in [q_lo, q_hi] see any key in [k_lo, k_hi]? False only if surely none."""
        return torch.ones(torch.broadcast_shapes(q_lo.shape, k_lo.shape), dtype=torch.bool, device=q_lo.device)

    def covers(self, q_lo: int, q_hi: int, k_lo: int, k_hi: int) -> bool:
        """Does every query in [q_lo, q_hi] see every key in [k_lo, k_hi]? True only if surely all."""
        return False

    @property
    def causal(self) -> bool:
        """True if no query sees a later key."""
        return False

    @property
    def horizon(self) -> int | None:
        """Keys this far back or further are never seen again by later queries; None: any may be."""
        return None

    def __and__(self, other: "Pattern") -> "Pattern":
        return Both(self, other) if isinstance(other, Pattern) else NotImplemented

    def __or__(self, other: "Pattern") -> "Pattern":
        return Either(self, other) if isinstance(other, Pattern) else NotImplemented


class Both(Pattern):
    """left & right: seen under both rules."""

    left: Pattern
    right: Pattern

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return self.left.visible(q, k, head) & self.right.visible(q, k, head)

    def reaches(self, q_lo: Tensor, q_hi: Tensor, k_lo: Tensor, k_hi: Tensor) -> Tensor:
        return self.left.reaches(q_lo, q_hi, k_lo, k_hi) & self.right.reaches(q_lo, q_hi, k_lo, k_hi)

    def covers(self, q_lo: int, q_hi: int, k_lo: int, k_hi: int) -> bool:
        return self.left.covers(q_lo, q_hi, k_lo, k_hi) and self.right.covers(q_lo, q_hi, k_lo, k_hi)

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

    def reaches(self, q_lo: Tensor, q_hi: Tensor, k_lo: Tensor, k_hi: Tensor) -> Tensor:
        return self.left.reaches(q_lo, q_hi, k_lo, k_hi) | self.right.reaches(q_lo, q_hi, k_lo, k_hi)

    def covers(self, q_lo: int, q_hi: int, k_lo: int, k_hi: int) -> bool:
        return self.left.covers(q_lo, q_hi, k_lo, k_hi) or self.right.covers(q_lo, q_hi, k_lo, k_hi)

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

    def covers(self, q_lo: int, q_hi: int, k_lo: int, k_hi: int) -> bool:
        return True


class Causal(Pattern):
    """A query sees itself and what stands before it."""

    def visible(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return k.pos <= q.pos

    def reaches(self, q_lo: Tensor, q_hi: Tensor, k_lo: Tensor, k_hi: Tensor) -> Tensor:
        return k_lo <= q_hi

    def covers(self, q_lo: int, q_hi: int, k_lo: int, k_hi: int) -> bool:
        return k_hi <= q_lo

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

    def reaches(self, q_lo: Tensor, q_hi: Tensor, k_lo: Tensor, k_hi: Tensor) -> Tensor:
        return (q_lo - k_hi < self.size) & (k_lo - q_hi < self.size)

    def covers(self, q_lo: int, q_hi: int, k_lo: int, k_hi: int) -> bool:
        return q_hi - k_lo < self.size and k_hi - q_lo < self.size

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

    def reaches(self, q_lo: Tensor, q_hi: Tensor, k_lo: Tensor, k_hi: Tensor) -> Tensor:
        back = q_lo // self.size <= k_hi // self.size + self.before
        return back & (k_lo // self.size <= q_hi // self.size + self.after)

    def covers(self, q_lo: int, q_hi: int, k_lo: int, k_hi: int) -> bool:
        back = q_hi // self.size - k_lo // self.size <= self.before
        return back and k_hi // self.size - q_lo // self.size <= self.after

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
