"""What a controller of low rank chooses, and the softmax at its choices alone, without logits that would lie in memory."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers.native.control import Decided, Matrices, decide, refuses_control, teach
from formers.sparse.choosing import COLD, small_type

__all__ = ["Matrices", "decided", "refuses_control"]


def decided(
    inner: Tensor,
    of: Matrices,
    chosen: Tensor | None = None,
    temperature: float = 0.0,
    chance: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The choices of inner (B, T, rank) in each block, of the smallest type, and their softmax, (B, T, K) each.

    They are `chosen`, where they are made already; drawn as `sample` draws them, where there is a generator; or the largest. The
    softmax has gradients by all three, and the way back makes the logits again. Where `refuses_control` says nothing.
    """
    rows, blocks = inner.flatten(0, 1), len(of.weight) // of.block
    shares = None
    if chosen is None and chance is not None and temperature >= COLD:
        shares = torch.rand((*inner.shape[:2], blocks), generator=chance, dtype=inner.dtype).flatten(0, 1)
    given = None if chosen is None else chosen.flatten(0, 1)
    picked, chances = _Decided.apply(rows, of.weight, of.bias, of.block, given, shares, temperature)
    shape = (*inner.shape[:2], blocks)
    return picked.view(shape).to(small_type(of.block)) if chosen is None else chosen, chances.view(shape)


class _Decided(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inner: Tensor,
        weight: Tensor,
        bias: Tensor,
        block: int,
        picked: Tensor | None,
        shares: Tensor | None,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        found = decide(
            inner, Matrices(weight, bias, block), picked=picked, shares=shares, temperature=temperature or 1.0
        )
        ctx.block = block
        ctx.save_for_backward(inner, weight, bias, *found)
        ctx.mark_non_differentiable(found.picked)
        return found.picked, found.chances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, upstream: Tensor) -> tuple[Tensor | None, ...]:
        inner, weight, bias, *found = ctx.saved_tensors
        grads = teach(upstream, inner, Matrices(weight, bias, ctx.block), Decided(*found))
        return *grads, None, None, None, None
