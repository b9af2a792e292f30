"""What is asked of a backend: one attention, with all that is known of it."""

from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from formers.attention.clusters import ClusterPlan
from formers.attention.marks import asks_for_marks
from formers.attention.pattern import Causal, Pattern
from formers.attention.plan import Plan, block_plan
from formers.attention.sorted.plan import SortedPlan
from formers.attention.span import Span
from formers.attention.top_blocks.plan import BlocksPlan
from formers.attention.visits.table import Visits, plan_visits
from formers.cached import cached
from formers.places import Memo, Places, keys, queries
from formers.position.core import PositionLayer

KEPT = 512 * 512  # pairs of which masks are kept between calls: some megabytes with many heads


class Shown(Enum):
    """All pairs, those of the past and one's own, or other ones."""

    ALL = "all"
    PAST = "past"
    SOME = "some"


class Request(NamedTuple):
    """One attention: q (B, H, T, D) at `at`; k (B, K, S, D), v (B, K, S, E) at `to`, K dividing H; see
    `backends.attend`."""

    q: Tensor
    k: Tensor
    v: Tensor
    at: Places
    to: Places
    pattern: Pattern
    position: PositionLayer
    scale: float
    dropout: float
    memo: Memo
    plan: Plan | SortedPlan | ClusterPlan | BlocksPlan | None = None

    @property
    def all_visible(self) -> bool:
        """Surely every query sees every key."""
        if self.at.start is None or self.to.start is None:
            return False
        return self.memo.once(("all visible", self.pattern, self.at, self.to), self._all_visible)

    def _all_visible(self) -> bool:
        return bool(self.pattern.covers(Span(*self.at.bounds), Span(*self.to.bounds)))

    @property
    def plainly_causal(self) -> bool:
        """A whole sequence against itself under the lower triangle, which fused kernels know by name."""
        at, to = self.at, self.to
        same = at.start is not None and at.start == to.start and at.length == to.length
        return same and at.length > 1 and type(self.pattern) is Causal

    @property
    def plain(self) -> bool:
        """Whether rows stand alike, without padding, and the pattern goes by positions alone: then plans and masks are kept
        between calls, and asking for them costs nothing."""
        marked = bool(self.at.marks or self.to.marks) and asks_for_marks(self.pattern)
        return self.at.start is not None and self.to.start is not None and not marked

    @property
    def shown(self) -> Shown:
        """What its blocks come to together, see `visits`; where it is not plain, some pairs."""
        return self.memo.once(("shown", self.pattern, self.at, self.to, self.q.shape[1]), self._shown)

    def _shown(self) -> Shown:
        (queries, keys), pairs = (self.at.length, self.to.length), self.visits.pairs if self.plain else None
        if pairs is None:
            return Shown.SOME
        if all(count == queries * keys for count in pairs):
            return Shown.ALL
        square = queries == keys and self.at.start == self.to.start and self.pattern.causal
        past = queries * (queries + 1) // 2
        return Shown.PAST if square and all(count == past for count in pairs) else Shown.SOME

    @property
    def share(self) -> float:
        """How much of all pairs a schedule would work on."""
        return self.block_plan().pairs / (self.at.length * self.to.length)

    @property
    def visits(self) -> Visits:
        """Which blocks see which, planned once a call."""
        key = ("visits", self.pattern, self.at, self.to, self.q.shape[1])
        return self.memo.once(key, lambda: plan_visits(self.pattern, self.at, self.to, self.q.shape[1]))

    def block_plan(self) -> Plan:
        """The blocks that the pattern reaches, planned once a call."""
        key = ("block_plan", self.pattern, self.at, self.to)
        return self.memo.once(key, lambda: block_plan(self.pattern, self.at, self.to))

    def mask(self) -> Tensor:
        """(1 or B, 1 or H, T, S): what is visible and real, worked out once a call."""
        return self.memo.once(("mask", self.pattern, self.at, self.to), self._mask)

    def _mask(self) -> Tensor:
        at, to, heads, device = self.at, self.to, self.q.shape[1], self.q.device
        kept = self.plain and at.length * to.length <= KEPT and not torch.compiler.is_compiling()
        if kept and at.start is not None and to.start is not None:
            return _mask_of_runs(self.pattern, heads, (at.start, at.length), (to.start, to.length), device)
        mask = _visible(self.pattern, at, to, heads, device)
        return mask if to.real is None else mask & to.real[:, None, None, :]


@cached(16)
def _mask_of_runs(
    pattern: Pattern, heads: int, at: tuple[int, int], to: tuple[int, int], device: torch.device
) -> Tensor:
    """Of queries and keys that stand one behind the other: where they begin, and how many there are."""
    return _visible(pattern, Places.run(*at, device), Places.run(*to, device), heads, device)


def _visible(pattern: Pattern, at: Places, to: Places, heads: int, device: torch.device) -> Tensor:
    return pattern.visible(queries(at), keys(to), torch.arange(heads, device=device)[:, None, None])


def repeated(request: Request) -> tuple[Tensor, Tensor]:
    """Keys and values, each key head repeated for the queries that share it."""
    return for_each(request.q, request.k), for_each(request.q, request.v)


def for_each(q: Tensor, k: Tensor) -> Tensor:
    """Keys (B, K, S, D), each repeated for the query heads (B, H, T, D) that share it."""
    return k if q.shape[1] == k.shape[1] else k.repeat_interleave(q.shape[1] // k.shape[1], 1)
