"""Attention of few queries to many inputs, whose keys and values are never made.

A score is linear in its key and an output in its values, so the projections may act on the other side of the products:
q (W_k x) is (q W_k) x, and a sum over W_v x is W_v times the sum over x. For G queries and heads D wide this takes G / D of
the operations that projecting all inputs takes, and none of the memory.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from formers.native import kept
from formers.places import Places


def attend_inputs(
    q: Tensor, x: Tensor, at: Places, k_proj: nn.Linear, v_proj: nn.Linear, scale: float, dropout: float = 0.0
) -> Tensor:
    """What queries q (B, H, G, D) get, (B, H, G, D), from all real inputs x (B, T, M) at `at`, by softmax attention.

    k_proj, v_proj: M -> H * D, of keys, which no position turns, and of values. dropout: rate at which weights are dropped.
    """
    heads = q.shape[1]
    turned = by_head(q, k_proj.weight.unflatten(0, (heads, -1)))  # (B, H, G, M)
    level = None
    if k_proj.bias is not None:  # the same for all keys: no weight depends on it, as none does where keys are made
        level = (q * k_proj.bias.view(heads, 1, -1)).sum(-1).flatten(1)[..., None]
    seen = turned.flatten(1, 2)
    met, sums = _Met.apply(seen, x.to(seen.dtype), level, at.real, scale, dropout)
    made = by_head(met.unflatten(1, (heads, -1)), v_proj.weight.unflatten(0, (heads, -1)).mT)
    if v_proj.bias is None:
        return made
    return made + sums.unflatten(1, (heads, -1)) * v_proj.bias.view(heads, 1, -1)


class _Met(torch.autograd.Function):
    """Sums of inputs by their weights. Weights are made again on the way back: they outweigh all else that is stored."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, x: Tensor, level: Tensor | None, real: Tensor | None, scale: float, rate: float
    ) -> tuple[Tensor, Tensor]:
        """q (B, R, M), x (B, T, M), level (B, R, 1) -> (B, R, M), and the sums of the weights (B, R, 1)."""
        weights = _weights(q, x, level, real, scale)
        keep = torch.empty_like(weights, dtype=torch.bool).bernoulli_(1 - rate) if rate else None
        ctx.save_for_backward(q, x, level, real, keep)
        ctx.scale, ctx.rate = scale, rate
        _drop(weights, keep, rate)
        with _exact(x):
            return weights.to(x.dtype) @ x, weights.sum(-1, keepdim=True).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_met: Tensor, by_sums: Tensor) -> tuple[Tensor | None, ...]:
        q, x, level, real, keep = ctx.saved_tensors
        weights = _weights(q, x, level, real, ctx.scale)
        slopes = (by_met @ x.mT).to(weights.dtype).add_(by_sums)
        _drop(slopes, keep, ctx.rate)
        along = torch.linalg.vecdot(slopes, weights)[..., None]
        slopes.sub_(along).mul_(weights).mul_(ctx.scale)
        _drop(weights, keep, ctx.rate)
        by_x = torch.bmm(weights.to(x.dtype).mT, by_met, out=kept.empty_like(x))
        del weights
        narrow = slopes.to(x.dtype)
        by_x.baddbmm_(narrow.mT, q)
        by_level = None if level is None else slopes.sum(-1, keepdim=True).to(level.dtype)
        return narrow @ x, by_x, by_level, None, None, None


def _weights(q: Tensor, x: Tensor, level: Tensor | None, real: Tensor | None, scale: float) -> Tensor:
    """(B, R, T), in fp32 or better."""
    with _exact(x):
        scores = (q @ x.mT).to(torch.promote_types(x.dtype, torch.float32))
    if level is not None:
        scores += level
    if real is not None:
        scores.masked_fill_(~real[:, None], torch.finfo(scores.dtype).min)
    return scores.mul_(scale).softmax(-1)


def _drop(weights: Tensor, keep: Tensor | None, rate: float) -> None:
    if keep is not None:
        weights.mul_(keep).div_(1 - rate)


def _exact(x: Tensor) -> torch.autocast:
    """Products in the type of what is multiplied: there is no autocast in the backward pass, and both ways are to agree."""
    return torch.autocast(x.device.type, enabled=False)


def by_head(rows: Tensor, matrices: Tensor) -> Tensor:
    """rows (B, H, G, M) times each head's matrix (H, M, N), (B, H, G, N): all batch rows at once, or the gradient by the
    matrices would be made for each of them and added up."""
    together = rows.transpose(0, 1).flatten(1, 2) @ matrices
    return together.unflatten(1, (len(rows), -1)).transpose(0, 1)


def folding_pays(queries: int, head_dim: int) -> bool:
    """Whether so many queries of a row are few enough."""
    return 2 * queries <= head_dim
