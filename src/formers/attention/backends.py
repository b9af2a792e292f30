"""Who runs a softmax attention: the fastest backend that says it can, and in the end the tile executor, which always can."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.clusters import ClusterPlan, attend_clusters
from formers.attention.pattern import Causal, Everything, Pattern
from formers.attention.plan import Plan, block_plan, dense_plan
from formers.attention.sorted.charge import EXACT
from formers.attention.sorted.drop import Drop
from formers.attention.sorted.lane import Meeting
from formers.attention.sorted.op import attend_sorted
from formers.attention.sorted.plan import Rules, SortedPlan
from formers.attention.span import Span
from formers.attention.tiles import attend_tiles
from formers.attention.visits.op import attend_visits
from formers.attention.visits.table import Visits as PlannedVisits
from formers.attention.visits.table import plan_visits
from formers.native.visits import BLOCK, refuses_visits
from formers.places import Memo, Places, keys, queries
from formers.position.core import PositionLayer
from formers.position.self_last import SelfLastLayer

SMALL = 1024 * 1024  # up to this many pairs, one dense product is faster than any schedule
SPARSE = 0.25  # a schedule that meets fewer of the pairs than this is worth following


class Request(NamedTuple):
    """One attention: q (B, H, T, D) at `at`; k (B, K, S, D), v (B, K, S, E) at `to`, K dividing H; see `attend`."""

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
    plan: Plan | SortedPlan | ClusterPlan | None = None

    @property
    def all_visible(self) -> bool:
        """Surely every query sees every key."""
        if self.at.start is None or self.to.start is None:
            return False
        return bool(self.pattern.covers(Span(*self.at.bounds), Span(*self.to.bounds)))

    @property
    def share(self) -> float:
        """How much of all pairs a schedule would work on."""
        return self.block_plan().pairs / (self.at.length * self.to.length)

    @property
    def visits(self) -> PlannedVisits:
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
        head = torch.arange(self.q.shape[1], device=self.q.device)[:, None, None]
        mask = self.pattern.visible(queries(self.at), keys(self.to), head)
        return mask if self.to.real is None else mask & self.to.real[:, None, None, :]


class Backend(Protocol):
    """A way to run a request."""

    name: str

    def refuses(self, request: Request) -> str | None:
        """Why it cannot run this request, or would be slow at it; None: it runs."""

    def run(self, request: Request) -> Tensor:
        """(B, H, T, E), equal to the tile executor's."""


class Sdpa:
    """PyTorch's fused scaled dot-product attention, dense."""

    name = "sdpa"

    def refuses(self, request: Request) -> str | None:
        if request.position.by_content:
            return f"{type(request.position).__name__} changes the scores by content"
        if request.plan is not None:
            return "the pairs are chosen by content"
        if _plainly_causal(request) or request.all_visible:
            return None
        if request.at.length >= BLOCK and VISITS.refuses(request) is None:
            return "not all pairs are seen, and blocks of those that are cost less than a mask"
        if request.at.length * request.to.length > SMALL and request.share < SPARSE:
            return f"the pattern shows {request.share:.0%} of the pairs"
        return None

    def run(self, request: Request) -> Tensor:
        mask, causal = None, False
        if request.position.biased:
            mask = self._bias(request)
        elif _plainly_causal(request):
            causal = True
        elif not request.all_visible:
            mask = request.mask()
        grouped = request.k.shape[1] != request.q.shape[1]
        out = F.scaled_dot_product_attention(
            request.q,
            request.k,
            request.v,
            attn_mask=mask,
            dropout_p=request.dropout,
            is_causal=causal,
            scale=request.scale,
            enable_gqa=grouped,
        )
        blind = mask is not None and request.to.real is not None
        return out.masked_fill(~request.mask().any(-1, keepdim=True), 0) if blind else out

    def _bias(self, request: Request) -> Tensor:
        """The bias, with -inf where nothing may be seen."""
        head = torch.arange(request.q.shape[1], device=request.q.device)[:, None, None]
        bias = request.position.bias(queries(request.at), keys(request.to), head).to(request.q.dtype)
        if request.all_visible:
            return bias.expand(*bias.shape[:-2], request.at.length, request.to.length)
        return bias.masked_fill(~request.mask(), float("-inf"))


class SortedChunks:
    """Ours, for plans of sorted chunks: nothing of the size of all scores is stored."""

    name = "sorted"

    def refuses(self, request: Request) -> str | None:
        if not isinstance(request.plan, SortedPlan):
            return "the plan is not one of sorted chunks"
        return _not_streamed(request)

    def run(self, request: Request) -> Tensor:
        plan = request.plan
        if not isinstance(plan, SortedPlan):
            raise TypeError(f"{type(request.plan).__name__} is not a plan of sorted chunks")
        k, v = repeated(request)
        meeting = _meeting(request, plan.rules)
        return attend_sorted(request.q, k, v, plan, request.to.pos, request.to.real, meeting)[0]


class Visits:
    """Ours, for every pattern over places: blocks of queries visit the blocks of keys that they see."""

    name = "visits"

    def refuses(self, request: Request) -> str | None:
        if request.plan is not None:
            return "the pairs are chosen by content"
        if request.position.by_content or request.position.biased:
            return f"{type(request.position).__name__} changes the scores"
        return refuses_visits(request.q, request.k, request.v)

    def run(self, request: Request) -> Tensor:
        visits = request.visits
        return attend_visits(request.q, request.k, request.v, visits.real, visits.table, request.scale, _drop(request))


class Clusters:
    """Ours, for plans of clusters of queries that are keys: by the executor of sorted chunks, each cluster one."""

    name = "clusters"

    def refuses(self, request: Request) -> str | None:
        if not isinstance(request.plan, ClusterPlan):
            return "the plan is not one of clusters"
        if request.plan.keys is not None:
            return "the members of a cluster are other tokens as queries than as keys"
        return _not_streamed(request)

    def run(self, request: Request) -> Tensor:
        plan = request.plan
        if not isinstance(plan, ClusterPlan):
            raise TypeError(f"{type(plan).__name__} is not a plan of clusters")
        k, v = repeated(request)
        meeting = _meeting(request, plan.rules)
        return attend_clusters(request.q, k, v, plan, request.to.pos, request.to.real, meeting)


class TileExecutor:
    """Ours: every pattern, position and plan."""

    name = "tiles"

    def refuses(self, request: Request) -> str | None:
        return None

    def run(self, request: Request) -> Tensor:
        plan = request.plan or self._plan(request)
        if not isinstance(plan, Plan):
            plan = plan.tiles()
        k, v = repeated(request)
        out, _ = attend_tiles(
            request.q,
            k,
            v,
            plan,
            at=request.at,
            to=request.to,
            pattern=request.pattern,
            position=request.position,
            scale=request.scale,
            dropout=request.dropout,
        )
        return out

    def _plan(self, request: Request) -> Plan:
        pairs = request.at.length * request.to.length
        if pairs <= SMALL:
            return dense_plan(request.at.length, request.to.length, request.q.device)
        return request.block_plan()


VISITS = Visits()
BACKENDS: tuple[Backend, ...] = (Sdpa(), VISITS, SortedChunks(), Clusters(), TileExecutor())


def attend(request: Request) -> Tensor:
    """Softmax attention (B, H, T, E) by the first backend that does not refuse."""
    return next(backend for backend in BACKENDS if backend.refuses(request) is None).run(request)


def repeated(request: Request) -> tuple[Tensor, Tensor]:
    """Keys and values, each key head repeated for the queries that share it."""
    return for_each(request.q, request.k), for_each(request.q, request.v)


def for_each(q: Tensor, k: Tensor) -> Tensor:
    """Keys (B, K, S, D), each repeated for the query heads (B, H, T, D) that share it."""
    return k if q.shape[1] == k.shape[1] else k.repeat_interleave(q.shape[1] // k.shape[1], 1)


def _not_streamed(request: Request) -> str | None:
    """Why the executor of sorted chunks cannot run this request."""
    if type(request.pattern) not in (Causal, Everything):
        return f"{request.pattern!r} shows neither all pairs nor those of the past"
    if request.position.by_content or (request.position.biased and not isinstance(request.position, SelfLastLayer)):
        return f"{type(request.position).__name__} changes the scores"
    if request.to.bounds[1] >= EXACT:
        return f"positions from {EXACT:,} on are not exact in its arithmetic"
    return None


def _meeting(request: Request, rules: Rules) -> Meeting:
    charge = request.position.charge if isinstance(request.position, SelfLastLayer) else 0.0
    return Meeting(rules, type(request.pattern) is Causal, charge, request.scale, _drop(request))


def _drop(request: Request) -> Drop | None:
    return Drop(request.dropout, torch.randint(1 << 31, ())) if request.dropout else None


def _plainly_causal(request: Request) -> bool:
    """A whole sequence against itself under the lower triangle, which fused kernels know by name."""
    at, to = request.at, request.to
    same = at.start is not None and at.start == to.start and at.length == to.length
    return same and at.length > 1 and type(request.pattern) is Causal
