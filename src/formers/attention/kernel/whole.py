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

from formers.attention.kernel.features import FeatureLayer
from formers.attention.kernel.pieces import gradients, room_for
from formers.attention.kernel.sums import Sums, asked_of, divided, divisor, exactly, told_of, with_one
from formers.attention.kernel.weights import times, weigh_all
from formers.parts import pieces

CACHED = 1 << 18  # features of a block on a CPU: with their gradient they stay in the cache of a core
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
                told, own = told_of(features, k[block], directions)
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
                leaves = _leaves((directions, k[block]), needed)
                with torch.enable_grad():
                    made = told_of(ctx.features, leaves[1], leaves[0])
                told, own = (None if t is None else t.detach() for t in made)
                weight, values = weigh_all(own, _shown(ctx.real, block), peak[rows])[0], with_one(v[block])
                by_fed = told @ upstream[rows]
                if by_v is not None:
                    by_v[block] = times(by_fed[..., :-1], weight)
                by_weight = (by_fed * values).sum(-1) + by_weights[rows, :, None]
                by_made = times(values, weight) @ turned[rows], None if own is None else by_weight * weight
                _keep((by_directions, by_k), block, gradients(made, by_made, leaves))
        return None, by_directions, by_k, by_v, None


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, features: FeatureLayer, directions: Tensor, q: Tensor, products: Tensor, count: Tensor
    ) -> Any:
        out, total = room_for(q[:, :, :0].to(products.dtype), q.shape[2]), products.new_empty(*q.shape[:3], 1)
        with exactly(q):
            for block in _blocks(features, q):
                sums = asked_of(features, q[block], directions) @ products[block[0]]
                out[block] = divided(features, sums, count[block[0], :, None, None])
                total[block] = sums[..., -1:]
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
        with exactly(q):
            for block in _blocks(ctx.features, q):
                rows = block[0]
                leaves = _leaves((directions, q[block]), needed[:2])
                with torch.enable_grad():
                    asked = asked_of(ctx.features, leaves[1], leaves[0])
                by_read, part = _of_quotient(ctx.features, upstream[block], out[block], total[block], count[rows])
                if by_sums is not None:
                    _add(by_sums[rows], by_read, asked.detach())
                if by_count is not None:
                    by_count[rows] += part
                _keep((by_directions, by_q), block, gradients((asked,), (by_read @ turned[rows],), leaves))
        return None, by_directions, by_q, None if by_sums is None else by_sums.mT, by_count


def _blocks(features: FeatureLayer, x: Tensor) -> list[Block]:
    """Rows and tokens of queries or keys x (B, H, T, D) whose features are in the cache at once."""
    batch, heads, length, _ = x.shape
    fit = (CACHED if x.device.type == "cpu" else LAUNCHED) // (heads * features.count)
    tokens = max(TOKENS, fit)
    rows = max(1, fit // max(1, min(length, tokens)))
    return [(r, slice(None), t) for r in pieces(batch, rows) for t in pieces(length, tokens)]


def _shown(real: Tensor | None, block: Block) -> Tensor | None:
    """The block's part of real (B, T), for all heads."""
    return None if real is None else real[block[0], None, block[2]]


def _add(sums: Tensor, told: Tensor, phi: Tensor) -> None:
    """To sums (B, H, E, F) the products of all tokens' told (B, H, T, E) and phi (B, H, T, F)."""
    sums.flatten(0, 1).baddbmm_(told.flatten(0, 1).mT, phi.flatten(0, 1))


def _of_quotient(
    features: FeatureLayer, upstream: Tensor, out: Tensor, total: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients by the sums (..., E) that `out` (..., D) is the quotient of, and by the count (B, H)."""
    leaves = _leaves((total, count), (True, True))
    with torch.enable_grad():
        below = divisor(features, leaves[0], leaves[1][..., None, None])
    by_values = upstream / below.detach()
    by_below = (by_values * out).sum(-1, keepdim=True).neg_()
    by_total, by_count = gradients((below,), (by_below,), leaves)
    return torch.cat([by_values, by_total], -1), by_count


def _leaves(tensors: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor]:
    """The tensors, of a graph that begins with them."""
    return [t.detach().requires_grad_(need) for t, need in zip(tensors, needed, strict=True)]


def _keep(whole: tuple[Tensor | None, Tensor | None], block: Block, parts: Sequence[Tensor | None]) -> None:
    """What a block adds to the gradient by directions, and its part of the one by queries or keys."""
    by_directions, by_x = whole
    if by_directions is not None:
        by_directions += parts[0]
    if by_x is not None:
        by_x[block] = parts[1]
