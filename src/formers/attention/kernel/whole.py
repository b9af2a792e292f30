"""Sums over all keys, and queries that read them: what a layer that looks both ways, and one that looks across, is made of.

Products with sums are differentiated by hand, block by block: what a block makes stays in the cache until the next one takes
its place, and of the sums only the last are kept. The backward pass makes features again, as in `pieces`.

In here sums lie as (B, H, E, F): products along many features are faster than products along few values.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers.attention.kernel.features import FeatureLayer, Features, WayBack
from formers.attention.kernel.pieces import room_for
from formers.attention.kernel.sums import Sums, divisor, exact, exactly, features_of, with_one
from formers.attention.kernel.weights import times, weigh_all
from formers.parts import pieces

CACHED = 1 << 18  # features of a block for each thread of a CPU: with their gradient they stay in the cache of a core
LAUNCHED = 1 << 20  # the same on other devices, where every call costs more
TOKENS = 64  # of a block at least: with fewer, sums would be most of what is read and written

Block = tuple[slice, slice, slice]  # of rows, heads and tokens


def sum_over(features: FeatureLayer, directions: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Sums:
    """The sums over all keys k, with values v, (B, H, T, D); real: (B, T) bool, False at padding."""
    return Sums(*_Sum.apply(features, directions, k, v, real))


def read(features: FeatureLayer, directions: Tensor, q: Tensor, sums: Sums) -> Tensor:
    """Each query q (B, H, T, D) over all keys of the sums: (B, H, T, D)."""
    out: Tensor = _Read.apply(features, directions, q, sums.products, sums.weights)
    return out.to(q.dtype)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: FeatureLayer, directions: Tensor, k: Tensor, v: Tensor, real: Tensor | None) -> Any:
        products, weights, peak = Sums.of_nothing(features.count, v)
        products = products.mT.contiguous()
        with exactly(v):
            for block in _blocks(features, k):
                rows = block[0]
                told, own = features_of(features, k[block], directions)
                weight, left, peak[rows] = weigh_all(own, _shown(real, block), peak[rows])
                if left is not None:
                    products[rows] *= left[..., None, None]
                    weights[rows] *= left
                _add(products[rows], times(with_one(v[block]), weight), told)
                weights[rows] += told.shape[2] if weight is None else weight.sum(-1)
        ctx.features, ctx.real = features, real
        ctx.save_for_backward(directions, k, v, peak)
        ctx.mark_non_differentiable(peak)
        return products.mT.contiguous(), weights, peak

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, by_weights: Tensor, _: Any) -> Any:
        directions, k, v, peak = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:4]
        by_directions = torch.zeros_like(directions) if needed[0] else None
        by_k, by_v = (room_for(t, t.shape[2]) if need else None for t, need in zip((k, v), needed[1:], strict=True))
        turned = upstream.mT.contiguous()
        with exactly(v):
            for block in _blocks(ctx.features, k):
                rows = block[0]
                (told, own), back = _again(ctx.features, k[block], directions, needed)
                weight, values = weigh_all(own, _shown(ctx.real, block), peak[rows])[0], with_one(v[block])
                by_fed = told @ upstream[rows]
                if by_v is not None:
                    by_v[block] = times(by_fed[..., :-1], weight)
                by_weight = (by_fed * values).sum(-1) + by_weights[rows, :, None]
                by_told = times(values, weight) @ turned[rows]
                by_own = None if own is None or weight is None else by_weight * weight
                _keep((by_k, by_directions), block, back(by_told, by_own))
        return None, by_directions, by_k, by_v, None


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: FeatureLayer, directions: Tensor, q: Tensor, products: Tensor, count: Tensor
    ) -> Any:
        out, total = room_for(q[:, :, :0].to(products.dtype), q.shape[2]), products.new_empty(*q.shape[:3], 1)
        with exactly(q):
            for block in _blocks(features, q):
                sums = features_of(features, q[block], directions).phi @ products[block[0]]
                out[block], total[block] = sums[..., :-1], sums[..., -1:]
        out /= divisor(features, total, count[..., None, None])
        ctx.features = features
        ctx.save_for_backward(directions, q, products, count, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        directions, q, products, count, out, total = ctx.saved_tensors
        turned = products.mT.contiguous()
        needed = ctx.needs_input_grad[1:]
        by_directions, by_sums, by_count = (
            torch.zeros_like(t) if need else None
            for t, need in zip((directions, turned, count), (needed[0], *needed[2:]), strict=True)
        )
        by_q = room_for(q, q.shape[2]) if needed[1] else None
        below, by_total, by_entered = _slopes(ctx.features, total, count)
        with exactly(q):
            for block in _blocks(ctx.features, q):
                rows = block[0]
                (asked, _), back = _again(ctx.features, q[block], directions, needed)
                by_values = upstream[block] / below[block]
                by_below = (by_values * out[block]).sum(-1, keepdim=True).neg_()
                by_read = torch.cat([by_values, by_below * by_total[block]], -1)
                if by_sums is not None:
                    _add(by_sums[rows], by_read, asked)
                if by_count is not None:
                    by_count[rows] += (by_below * by_entered[block]).sum((2, 3))
                _keep((by_q, by_directions), block, back(by_read @ turned[rows], None))
        return None, by_directions, by_q, None if by_sums is None else by_sums.mT, by_count


def _blocks(features: FeatureLayer, x: Tensor) -> list[Block]:
    """Rows and tokens of queries or keys x (B, H, T, D) whose features are in the cache at once."""
    batch, heads, length, _ = x.shape
    room = CACHED * torch.get_num_threads() if x.device.type == "cpu" else LAUNCHED
    fit = room // (heads * features.count)
    tokens = max(TOKENS, fit)
    rows = max(1, fit // max(1, min(length, tokens)))
    return [(r, slice(None), t) for r in pieces(batch, rows) for t in pieces(length, tokens)]


def _shown(real: Tensor | None, block: Block) -> Tensor | None:
    """The block's part of real (B, T), for all heads."""
    return None if real is None else real[block[0], None, block[2]]


def _add(sums: Tensor, told: Tensor, phi: Tensor) -> None:
    """To sums (B, H, E, F) the products of all tokens' told (B, H, T, E) and phi (B, H, T, F)."""
    sums.flatten(0, 1).baddbmm_(told.flatten(0, 1).mT, phi.flatten(0, 1))


def _slopes(features: FeatureLayer, total: Tensor, count: Tensor) -> list[Tensor]:
    """What values are divided by, (B, H, T, 1), and its derivatives by their total and by the count."""
    leaves = [t.detach().requires_grad_() for t in (total, count[..., None, None].expand_as(total))]
    with torch.enable_grad():
        below = divisor(features, *leaves)
    found = torch.autograd.grad(below, leaves, torch.ones_like(below), materialize_grads=True)
    return [below.detach(), *found]


def _again(features: FeatureLayer, x: Tensor, directions: Tensor, needed: Sequence[bool]) -> tuple[Features, WayBack]:
    """needed: whether a gradient is, by the directions and by x."""
    return features.with_way_back(x.to(exact(x)), directions.to(exact(x)), (needed[1], needed[0]))


def _keep(whole: tuple[Tensor | None, Tensor | None], block: Block, parts: Sequence[Tensor | None]) -> None:
    """The block's part of the gradient by queries or keys, and what it adds to the one by the directions."""
    (by_x, by_directions), (part, added) = whole, parts
    if by_x is not None and part is not None:
        by_x[block] = part
    if by_directions is not None and added is not None:
        by_directions += added
