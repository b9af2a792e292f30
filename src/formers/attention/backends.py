"""Who runs a softmax attention: the fastest backend that says it can, and in the end the tile executor, which always can."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.clusters import ClusterPlan, attend_clusters
from formers.attention.pattern import Causal, Everything
from formers.attention.plan import Plan, dense_plan
from formers.attention.request import KEPT, Request, Shown, repeated
from formers.attention.sorted.charge import EXACT
from formers.attention.sorted.drop import Drop
from formers.attention.sorted.lane import Meeting
from formers.attention.sorted.op import attend_sorted
from formers.attention.sorted.plan import Rules, SortedPlan
from formers.attention.tiles import attend_tiles
from formers.attention.top_blocks.plan import BlocksPlan
from formers.attention.top_blocks.visits import visits_of
from formers.attention.visits.op import attend_visits
from formers.attention.visits.table import Visits as Visited
from formers.native.visits import BLOCK, refuses_visits
from formers.places import keys, queries
from formers.position.self_last import SelfLastLayer

SMALL = 1024 * 1024  # up to this many pairs, one dense product is faster than any schedule
SPARSE = 0.25  # a schedule that meets fewer of the pairs than this is worth following
FEW = 256 * 256  # up to this many pairs a mask costs less than blocks


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
        small = request.at.length * request.to.length <= SMALL
        if (small and request.at.length < BLOCK) or self._shown(request) is not Shown.SOME:
            return None
        if request.at.length >= BLOCK and VISITS.refuses(request) is None and not self._few(request):
            return "not all pairs are seen, and blocks of those that are cost less than a mask"
        if not small and request.share < SPARSE:
            return f"the pattern shows {request.share:.0%} of the pairs"
        return None

    def run(self, request: Request) -> Tensor:
        shown = self._shown(request)
        mask, causal = None, shown is Shown.PAST
        if request.position.biased:
            mask, causal = self._bias(request), False
        elif shown is Shown.SOME:
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

    def _few(self, request: Request) -> bool:
        """Whether one product with a mask costs no more than blocks do, which are planned anew where places are not plain."""
        pairs = request.at.length * request.to.length
        return pairs <= FEW or (pairs <= KEPT and not request.plain)

    def _shown(self, request: Request) -> Shown:
        """What fused kernels know without a mask, as the pattern says at once, or as its blocks come to together."""
        if request.plainly_causal:
            return Shown.PAST
        if request.all_visible:
            return Shown.ALL
        planned = request.at.length >= BLOCK and VISITS.refuses(request) is None
        return request.shown if planned else Shown.SOME

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
        return _not_visited(request)

    def run(self, request: Request) -> Tensor:
        return _visit(request, request.visits)


class ChosenBlocks:
    """Ours, for plans of blocks that each query chose: by the executor of visits."""

    name = "chosen blocks"

    def refuses(self, request: Request) -> str | None:
        if not isinstance(request.plan, BlocksPlan):
            return "the plan is not one of chosen blocks"
        if request.plan.few:
            return "so few queries are met faster one by one"
        return _partly_shown(request) or _not_visited(request)

    def run(self, request: Request) -> Tensor:
        if not isinstance(request.plan, BlocksPlan):
            raise TypeError(f"{type(request.plan).__name__} is not a plan of chosen blocks")
        return _visit(request, visits_of(request.plan, request.pattern))


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
BACKENDS: tuple[Backend, ...] = (Sdpa(), VISITS, SortedChunks(), Clusters(), ChosenBlocks(), TileExecutor())


def attend(request: Request) -> Tensor:
    """Softmax attention (B, H, T, E) by the first backend that does not refuse."""
    return next(backend for backend in BACKENDS if backend.refuses(request) is None).run(request)


def _partly_shown(request: Request) -> str | None:
    """Why a plan by content is not all that decides who meets whom, if the pattern has a say beyond the past."""
    if type(request.pattern) in (Causal, Everything):
        return None
    return f"{request.pattern!r} shows neither all pairs nor those of the past"


def _not_visited(request: Request) -> str | None:
    """Why the executor of visits cannot run this request."""
    if request.position.by_content or request.position.biased:
        return f"{type(request.position).__name__} changes the scores"
    return refuses_visits(request.q, request.k, request.v)


def _visit(request: Request, visits: Visited) -> Tensor:
    return attend_visits(request.q, request.k, request.v, visits.real, visits.table, request.scale, _drop(request))


def _not_streamed(request: Request) -> str | None:
    """Why the executor of sorted chunks cannot run this request."""
    if (partly := _partly_shown(request)) is not None:
        return partly
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
