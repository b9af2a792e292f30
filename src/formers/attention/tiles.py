"""The softmax executor: gather tiles, score, mask by the pattern, softmax, merge by log-sum-exp.

It runs every pattern, position and plan. Faster backends may take over where they give the same result.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from formers.attention.pattern import Pattern
from formers.attention.plan import Plan, Tiles
from formers.places import Places, Spots
from formers.position.core import PositionLayer


def attend_tiles(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    plan: Plan,
    *,
    at: Places,
    to: Places,
    pattern: Pattern,
    position: PositionLayer,
    scale: float,
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Softmax attention over the pairs that the plan meets and the pattern shows.

    q (B, H, T, D) at `at`; k (B, H, S, D) and v (B, H, S, E) at `to`. Returns out (B, H, T, E) and the log-sum-exp
    of each query's scores (B, H, T): partial results over different keys merge by it. A query that sees nothing
    gets 0 and -inf.
    """
    parts = [_one_group(q, k, v, tiles, at, to, pattern, position, scale, dropout) for tiles in plan.groups]
    shape = q.shape[:3]
    if not parts:
        return v.new_zeros(*shape, v.shape[-1]), v.new_full(shape, float("-inf"))
    if plan.dense:
        return parts[0][1], parts[0][2]
    return _merge(parts, shape, v.shape[-1], plan)


def _one_group(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tiles: Tiles,
    at: Places,
    to: Places,
    pattern: Pattern,
    position: PositionLayer,
    scale: float,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (B, H, N*R), their outputs (B, H, N*R, E) and their log-sum-exps, over the keys of their tile alone.

    A row that is nothing (index -1) is told as row 0 with a log-sum-exp of -inf, so that it weighs nothing there.
    """
    rows, columns = tiles.q_index.clamp(min=0), tiles.k_index.clamp(min=0)
    q_at = Spots.of(at, lambda t: _pick(t, rows)[..., :, None])
    k_at = Spots.of(to, lambda t: _pick(t, columns)[..., None, :])
    head = torch.arange(q.shape[1], device=q.device)[:, None, None, None]
    scores = position.scores(_take(q, rows), _take(k, columns), q_at, k_at, head) * scale
    if position.biased:
        scores = scores + position.bias(q_at, k_at, head).to(scores.dtype)
    allowed = pattern.visible(q_at, k_at, head)
    allowed = allowed & (tiles.q_index >= 0)[..., :, None] & (tiles.k_index >= 0)[..., None, :]
    if tiles.meet is not None:
        allowed = allowed & tiles.meet
    if to.real is not None:
        allowed = allowed & _pick(to.real, columns)[..., None, :]
    weights, lse = _softmax(scores, allowed)
    weights = F.dropout(weights, dropout) if dropout else weights
    out = weights @ _take(v, columns)
    extra = position.values(weights, q_at, k_at, head)
    out = out if extra is None else out + extra
    return rows.expand(*q.shape[:2], *rows.shape[-2:]).flatten(2), out.flatten(2, 3), lse.flatten(2)


def _softmax(scores: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and log-sum-exp over the allowed pairs; 0 and -inf where there are none."""
    scores = scores.masked_fill(~allowed, float("-inf"))
    lse = scores.logsumexp(-1)
    floor = torch.finfo(scores.dtype).min
    return (scores - lse.clamp(min=floor)[..., None]).exp(), lse


def _pick(t: Tensor, index: Tensor) -> Tensor:
    """t (1 or B, L) at index (1 or B, 1 or H, N, R) -> (1 or B, 1 or H, N, R)."""
    batch = max(t.shape[0], index.shape[0])
    flat = index.expand(batch, *index.shape[1:]).flatten(1)
    return t.expand(batch, -1).gather(1, flat).view(batch, *index.shape[1:])


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x (B, H, L, D) at index (1 or B, 1 or H, N, R) -> (B, H, N, R, D)."""
    if index.shape[:2] == (1, 1):
        return x[:, :, index[0, 0]]
    index = index.expand(*x.shape[:2], *index.shape[2:])
    flat = index.flatten(2)[..., None].expand(-1, -1, -1, x.shape[-1])
    return x.gather(2, flat).unflatten(2, index.shape[2:])


def _merge(
    parts: list[tuple[Tensor, Tensor, Tensor]], shape: torch.Size, width: int, plan: Plan
) -> tuple[Tensor, Tensor]:
    """Put the rows back in order; partial softmaxes of one query are weighted by exp(lse), or all alike in a mean."""
    rows, outs, lses = (torch.cat(each, 2) for each in zip(*parts, strict=True))
    floor = torch.finfo(lses.dtype).min
    peak = torch.full(shape, floor, dtype=lses.dtype, device=lses.device)
    peak = peak.scatter_reduce(2, rows, lses.detach().clamp(min=floor), "amax")
    weight = (lses - peak.gather(2, rows)).exp()
    total = torch.zeros_like(peak).scatter_add(2, rows, weight)
    seen = total > 0
    total = torch.where(seen, total, 1)
    if plan.mean:
        shown = lses.isfinite().to(outs.dtype)
        times = torch.zeros_like(total).scatter_add(2, rows, shown)
        outs = outs / times.clamp(min=1).gather(2, rows)[..., None]
    elif not plan.disjoint:
        outs = outs * (weight / total.gather(2, rows))[..., None]
    out = outs.new_zeros(*shape, width).scatter_add(2, rows[..., None].expand_as(outs), outs)
    return out, torch.where(seen, peak + total.log(), float("-inf"))
