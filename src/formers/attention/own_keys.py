"""Keys that are their queries at length 1."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers.native import kept
from formers.parts import pieces

EPS = 1e-6  # of the mean square, as in trax
PIECE = 1 << 18  # numbers that are worked on at a time: on a CPU as many as its cache holds


def own_keys(q: Tensor) -> tuple[Tensor, Tensor]:
    """q (..., T, D) and q / sqrt(|q|^2 + D * EPS).

    Both come out, and not the keys alone, so that one buffer takes the sum of their gradients.
    """
    both: tuple[Tensor, Tensor] = _OwnKeys.apply(q)
    return both


class _OwnKeys(torch.autograd.Function):
    """Passes over memory, and new memory, are all that this costs: so it goes by pieces, each in few passes."""

    @staticmethod
    def forward(ctx: Any, q: Tensor) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(q.dtype, torch.float32)
        k, shrink = kept.empty_like(q), q.new_empty((*q.shape[:-1], 1), dtype=exact)
        for rows in _pieces(q):
            mine = q[..., rows, :]
            squares = torch.linalg.vector_norm(mine, dim=-1, keepdim=True, dtype=exact).square_()
            shrink[..., rows, :] = squares.add_(q.shape[-1] * EPS).rsqrt_()
            k[..., rows, :] = mine * shrink[..., rows, :]
        ctx.save_for_backward(k, shrink)
        ctx.set_materialize_grads(False)
        return q.view_as(q), k

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_q: Tensor | None, by_k: Tensor | None) -> Tensor | None:
        """Only what is at right angles to the vector changes its direction."""
        if by_k is None:
            return by_q
        k, shrink = ctx.saved_tensors
        total = kept.empty_like(k)
        for rows in _pieces(k):
            grad, mine = by_k[..., rows, :], k[..., rows, :]
            along = torch.linalg.vecdot(grad, mine)[..., None]
            across = torch.addcmul(grad, mine, along, value=-1).mul_(shrink[..., rows, :])
            total[..., rows, :] = across if by_q is None else across.add_(by_q[..., rows, :])
        return total


def _pieces(x: Tensor) -> list[slice]:
    """Of the tokens of x (..., T, D)."""
    length = x.shape[-2]
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(0, length)]
    return pieces(length, max(1, PIECE * length // max(1, x.numel())))
