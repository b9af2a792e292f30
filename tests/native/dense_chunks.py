"""Attention over sorted chunks by its meaning: all pairs at once, in fp64."""

from dataclasses import dataclass

import torch
from torch import Tensor

from formers.native import Rules


@dataclass(frozen=True)
class Case:
    """Inputs of a call: q, k, v (B, H, L, width); order, slot, bucket (B, H, R, L); pos, real (B, L)."""

    q: Tensor
    k: Tensor
    v: Tensor
    order: Tensor
    slot: Tensor
    bucket: Tensor
    pos: Tensor
    real: Tensor | None


def random_case(
    length: int, dim: int, value_dim: int, rounds: int, *, padded: bool = False, batch: int = 2, heads: int = 2
) -> Case:
    """Tokens in a few random buckets in each round, sorted by them; unit keys, shared with the queries."""
    make = torch.Generator().manual_seed(length * 1000 + dim * 10 + rounds)
    q = torch.randn(batch, heads, length, dim, generator=make)
    k = torch.nn.functional.normalize(q, dim=-1) * dim**0.5
    v = torch.randn(batch, heads, length, value_dim, generator=make)
    bucket = torch.randint(0, max(2, length // 12), (batch, heads, rounds, length), generator=make)
    order = (bucket * length + torch.arange(length)).argsort(-1)
    slot = order.argsort(-1)
    real = torch.rand(batch, length, generator=make) > 0.2 if padded else None
    pos = torch.arange(length, dtype=torch.int32).expand(batch, length)
    return Case(q, k, v, order.int(), slot.int(), bucket.int(), pos, real)


def meetings(case: Case, rules: Rules) -> Tensor:
    """How often each pair meets: (B, H, L, L)."""
    batch, heads, rounds, length = case.order.shape
    counts = torch.zeros(batch, heads, length, length, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            for r in range(rounds):
                counts[b, h] += _round(case, rules, b, h, r)
    if rules.once:
        counts = (counts > 0).double()
    if rules.causal:
        counts = counts * (case.pos[:, None, None, :] <= case.pos[:, None, :, None])
    if case.real is not None:
        counts = counts * case.real[:, None, None, :]
    return counts


def _round(case: Case, rules: Rules, b: int, h: int, r: int) -> Tensor:
    order, slot, bucket = case.order[b, h].long(), case.slot[b, h, r], case.bucket[b, h, r]
    rounds, length = order.shape
    counts = torch.zeros(length, length, dtype=torch.float64)
    chunks = [row.split(rules.chunk) for row in order]
    for c, rows in enumerate(chunks[r]):
        for v in range(c - rules.before, c + rules.after + 1):
            turn, there = (r, v) if 0 <= v < len(chunks[r]) else ((r - 1) % rounds, v + len(chunks[r]))
            if v >= len(chunks[r]):
                turn, there = (r + 1) % rounds, v - len(chunks[r])
            if (turn != r or not 0 <= v < len(chunks[r])) and (not rules.wrap or not 0 <= there < len(chunks[r])):
                continue
            counts[rows[:, None], chunks[turn][there][None, :]] += 1
    if rules.reach:
        counts = counts * ((slot[:, None] - slot[None, :]).abs() < rules.reach)
    if rules.same:
        counts = counts * (bucket[:, None] == bucket[None, :])
    return counts


def attend(case: Case, rules: Rules, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and log-sum-exps for fp64 q, k and v, which may want gradients."""
    counts = meetings(case, rules)
    scores = q @ k.mT * rules.scale + rules.self_bias * (case.pos[:, None, None, :] == case.pos[:, None, :, None])
    scores = scores.masked_fill(counts == 0, -torch.inf) + counts.clamp(min=1).log()
    lse = scores.logsumexp(-1)
    nothing = lse.isneginf()[..., None]
    weights = (scores - lse[..., None].masked_fill(nothing, 0)).exp()
    return weights @ v, lse
