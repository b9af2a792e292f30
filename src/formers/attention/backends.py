"""Who runs a softmax attention: the fastest backend that says it can, and in the end the tile executor, which always can."""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.pattern import Causal, Pattern
from formers.attention.plan import Plan, block_plan, dense_plan
from formers.attention.tiles import attend_tiles
from formers.places import Memo, Places, keys, queries
from formers.position.core import PositionLayer

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
    plan: Plan | None = None

    @property
    def all_visible(self) -> bool:
        """Surely every query sees every key."""
        if self.at.start is None or self.to.start is None:
            return False
        return self.pattern.covers(*self.at.bounds, *self.to.bounds)

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
        pairs = request.at.length * request.to.length
        if pairs > SMALL and not request.all_visible and not _plainly_causal(request):
            share = request.block_plan().pairs / pairs
            if share < SPARSE:
                return f"the pattern shows {share:.0%} of the pairs"
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


class TileExecutor:
    """Ours: every pattern, position and plan."""

    name = "tiles"

    def refuses(self, request: Request) -> str | None:
        return None

    def run(self, request: Request) -> Tensor:
        plan = request.plan or self._plan(request)
        repeat = request.q.shape[1] // request.k.shape[1]
        k, v = (t.repeat_interleave(repeat, 1) if repeat > 1 else t for t in (request.k, request.v))
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


BACKENDS: tuple[Backend, ...] = (Sdpa(), TileExecutor())


def attend(request: Request) -> Tensor:
    """Softmax attention (B, H, T, E) by the first backend that does not refuse."""
    return next(backend for backend in BACKENDS if backend.refuses(request) is None).run(request)


def _plainly_causal(request: Request) -> bool:
    """A whole sequence against itself under the lower triangle, which fused kernels know by name."""
    at, to = request.at, request.to
    same = at.start is not None and at.start == to.start and at.length == to.length
    return same and at.length > 1 and type(request.pattern) is Causal
