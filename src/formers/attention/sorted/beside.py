"""Blocks of positions that attend to themselves and to keys and values of their own beside: a native PyTorch operator.

One softmax over both, without a copy that puts them side by side and without a tensor of the size of the scores.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers import native
from formers.attention.mixing import add_gradient_by_blocks, gradient_by_matrix, mix_earlier


def refuses_earlier(q: Tensor) -> str | None:
    """Why there is no native code for this, in words; None where there is."""
    return native.refuses(q, q, q, _rules(1, 1.0))


def attend_earlier(q: Tensor, k: Tensor, v: Tensor, matrix: Tensor, block: int) -> Tensor:
    """Causal attention of each block to itself and, but for the first, to earlier blocks mixed by the matrix.

    q, k, v (B, H, N * b, D); matrix (B, H, N, N), nothing on its diagonal and above it; gives (B, H, N * b, D). Scores
    are scaled by D^-0.5.
    """
    rows = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    out: Tensor = _AttendEarlier.apply(*rows, matrix.to(q.dtype), block)
    return out


class _AttendEarlier(torch.autograd.Function):
    """Mixing and attending in one, so that the gradients by keys and values are added where they are made."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, matrix: Tensor, block: int) -> Tensor:
        blocks = [_in_blocks(t, block).flatten(3).flatten(0, 1) for t in (k, v)]
        flat = matrix.flatten(0, 1)
        beside = [mix_earlier(flat, t).view(k.shape) for t in blocks]
        out, lse = _forward(q, k, v, *beside, block)
        ctx.save_for_backward(out, lse, q, k, v, *beside, flat, *blocks)
        ctx.block, ctx.shape = block, matrix.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *attended, matrix, keys, values = ctx.saved_tensors
        by_q, by_k, by_v, *by_beside = _backward(grad, *attended, ctx.block)
        by_matrix = torch.zeros_like(matrix)
        for blocks, upstream, own in zip((keys, values), by_beside, (by_k, by_v), strict=True):
            upstream = upstream.reshape(blocks.shape)
            by_matrix += gradient_by_matrix(upstream, blocks)
            for row, weights, to in zip(
                upstream.unflatten(0, own.shape[:2]),
                matrix.unflatten(0, own.shape[:2]),
                _in_blocks(own, ctx.block),
                strict=True,
            ):
                add_gradient_by_blocks(row, weights, to)
        return by_q, by_k, by_v, by_matrix.view(ctx.shape), None


def _in_blocks(x: Tensor, block: int) -> Tensor:
    """(B, H, N * b, D) -> (B, H, N, b, D)."""
    return x.unflatten(2, (-1, block))


@torch.library.custom_op("formers::attend_beside", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, far_k: Tensor, far_v: Tensor, block: int) -> tuple[Tensor, Tensor]:
    order, pos = _as_they_stand(q)
    rules = _rules(block, q.shape[-1] ** -0.5)
    return native.forward(q, k, v, order, order, None, pos, None, rules, beside=(far_k, far_v))


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, far_k: Tensor, far_v: Tensor, block: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v), q.new_empty(q.shape[:3])


@torch.library.custom_op("formers::attend_beside_backward", mutates_args=())
def _backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    far_k: Tensor,
    far_v: Tensor,
    block: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    order, pos = _as_they_stand(q)
    rules = _rules(block, q.shape[-1] ** -0.5)
    beside = (far_k, far_v)
    by_q, by_k, by_v, by_far_k, by_far_v = native.backward(
        grad, out, lse, q, k, v, order, order, None, pos, None, rules, beside=beside
    )
    return by_q, by_k, by_v, by_far_k, by_far_v


@_backward.register_fake
def _(grad: Tensor, out: Tensor, lse: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(t) for t in inputs[:-1])


def _as_they_stand(q: Tensor) -> tuple[Tensor, Tensor]:
    """One round of all tokens in order, and their positions."""
    order = torch.arange(q.shape[2], dtype=torch.int32)
    return order[None, None, None], order[None]


def _rules(block: int, scale: float) -> native.Rules:
    return native.Rules(block, 0, 0, False, 0, False, False, True, 0.0, scale)
