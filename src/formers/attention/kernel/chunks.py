"""The products of the scan: queries with the keys before them in their chunk, and with the sums of earlier chunks."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers.attention.kernel.weights import Weights, times


def scan(asked: Tensor, told: Tensor, values: Tensor, weights: Weights, before: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted sums of values (B, H, N, C, E) at each query, and the sums (B, H, F, E) behind the last chunk.

    asked, told: features (B, H, N, C, F) of queries and keys. values: (B, H, N, C, E). before: the sums that the first
    chunk begins with.
    """
    out, after = _Scan.apply(asked, told, values, before, weights.within, weights.since, weights.over, weights.at_end)
    return out, after


class _Scan(torch.autograd.Function):
    """By hand, since what autograd would keep and add up is most of the work: the features are read and written once
    for each product, and sums go from chunk to chunk inside it."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor | None) -> Any:
        asked, told, values, before, within, since, over, at_end = _by_head(tensors)
        raw = asked @ told.mT
        out, fed = (raw * within) @ values, times(values, at_end)
        sums, reads = [before], []
        for n in range(asked.shape[1]):
            reads.append(asked[:, n] @ sums[n])
            out[:, n] += times(reads[n], None if since is None else since[:, n])
            sums.append(torch.baddbmm(_left(sums[n], over, n), told[:, n].mT, fed[:, n]))
        ctx.count = asked.shape[1]
        ctx.save_for_backward(*tensors, raw, *sums[:-1], *(reads if ctx.needs_input_grad[5] else ()))
        shape = tensors[0].shape  # type: ignore[union-attr]
        return out.unflatten(0, shape[:2]), sums[-1].unflatten(0, shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, behind: Tensor) -> Any:
        tensors, (raw, *kept) = ctx.saved_tensors[:8], ctx.saved_tensors[8:]
        asked, told, values, _, within, since, over, at_end = _by_head(tensors)
        sums, reads = kept[: ctx.count], kept[ctx.count :]
        upstream, behind = upstream.flatten(0, 1), behind.flatten(0, 1)
        fed, read = times(values, at_end), times(upstream, since)
        by_scores = upstream @ values.mT
        by_raw = by_scores * within
        by_asked, by_told, by_fed = by_raw @ told, by_raw.mT @ asked, torch.empty_like(values)
        by_over: list[Tensor] | None = [] if ctx.needs_input_grad[6] else None
        for n in reversed(range(ctx.count)):
            by_fed[:, n] = told[:, n] @ behind
            by_told[:, n].baddbmm_(fed[:, n], behind.mT)
            by_asked[:, n].baddbmm_(read[:, n], sums[n].mT)
            if by_over is not None:
                by_over.append((behind * sums[n]).sum((1, 2)))
            behind = torch.baddbmm(_left(behind, over, n), asked[:, n].mT, read[:, n])
        found = [
            by_asked,
            by_told,
            ((raw * within).mT @ upstream).add_(times(by_fed, at_end)),
            behind,
            by_scores * raw if ctx.needs_input_grad[4] else None,
            (upstream * torch.stack(reads, 1)).sum(-1) if reads else None,
            torch.stack(by_over[::-1], 1) if by_over else None,
            (by_fed * values).sum(-1) if ctx.needs_input_grad[7] else None,
        ]
        heads = tensors[0].shape[:2]
        return tuple(None if t is None else t.unflatten(0, heads) for t in found)


def _by_head(tensors: Sequence[Tensor | None]) -> list[Any]:
    """(B, H, ...) -> (B * H, ...); what is the same for all heads, (C, C), as it is."""
    return [t if t is None or t.dim() == 2 else t.flatten(0, 1) for t in tensors]


def _left(sums: Tensor, over: Tensor | None, n: int) -> Tensor:
    """What is left of sums (B * H, F, E) over chunk n."""
    return sums if over is None else sums * over[:, n, None, None]
