"""Sorting blocks softly: block representations to scores, and scores to (almost) doubly stochastic matrices."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from formers.products import Matrix

ABSENT = -1e9  # the logarithm of nothing, finite so that no gradient through it is ever NaN
LEAST = -80.0  # the lowest logarithm of a share that is told from nothing: exp is slow where it underflows


class SortingNetwork(nn.Module):
    """Scores of every pair of blocks, each head with parameters of its own: a layer of ReLU units on the blocks'
    representations, then what a block seeks against what a block offers."""

    def __init__(self, dim: int, heads: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.up = Matrix(dim, heads * width)
        self.seek = nn.Parameter(torch.randn(heads, width, width) * width**-0.5)
        self.offer = nn.Parameter(torch.randn(heads, width, width) * width**-0.5)

    def forward(self, seekers: Tensor, offered: Tensor) -> Tensor:
        """seekers (B, R, M), offered (B, N, M) -> scores (B, H, R, N), at least float32."""
        sought, found = self._units(seekers) @ self.seek, self._units(offered) @ self.offer
        scores = sought @ found.mT * sought.shape[-1] ** -0.5
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def _units(self, blocks: Tensor) -> Tensor:
        return self.up(blocks).relu().unflatten(-1, (self.heads, -1)).transpose(1, 2)


def sinkhorn(scores: Tensor, iterations: int, allowed: Tensor | None = None) -> Tensor:
    """exp(scores) with rows, then columns, made to sum to 1, again and again, in log space. Sinkhorn 1964.

    scores (..., N, N); allowed: bool, broadcasts to them: where it is False the result is 0.
    """
    for _ in range(iterations):
        for axis in (-1, -2):
            scores = _only(scores, allowed).log_softmax(axis)
    return _only(scores, allowed).exp()


def sinkhorn_causal(
    scores: Tensor, iterations: int, allowed: Tensor, before: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sinkhorn's iterations in which no row knows of a later one: a column is divided by its sum so far.

    scores (B, H, R, N), the rows in order of time; allowed: bool, broadcasts to them. before (B, H, iterations, N): the
    columns' sums over the rows of earlier calls, as logarithms. Returns the matrix, its rows summing to 1 (to 0 where
    nothing is allowed), and `before` for the rows that follow.
    """
    sums = []
    for step in range(iterations):
        scores = _only(_only(scores, allowed).log_softmax(-1), allowed)
        so_far = _running(scores, None if before is None else before[:, :, step, None])
        sums.append(so_far[:, :, -1])
        scores = scores - so_far
    return _only(scores, allowed).softmax(-1).masked_fill(~allowed, 0), torch.stack(sums, 2)


def _running(terms: Tensor, before: Tensor | None) -> Tensor:
    if before is None:
        return RunningLogSum.apply(terms)
    return RunningLogSum.apply(torch.cat([before, terms], 2))[:, :, 1:]


class RunningLogSum(torch.autograd.Function):
    """torch.logcumsumexp over the last axis but one, which is several times slower on a CPU. Rows are summed within
    groups, all groups at a time, and then the groups one after another."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, terms: Tensor) -> Tensor:
        sums, count = in_groups(terms, ABSENT), terms.shape[-2]
        for before, row in pairwise(sums.unbind(-2)):
            torch.logaddexp(before, row, out=row)
        for before, group in pairwise(sums.unbind(-3)):
            torch.logaddexp(before[..., -1:, :], group, out=group)
        sums = sums.flatten(-3, -2)[..., :count, :]
        ctx.save_for_backward(terms, sums)
        return sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        """A term is a share exp(term - sum) of its own sum, and that sum one of the next: no exponent is positive."""
        terms, sums = ctx.saved_tensors  # type: ignore[attr-defined]
        sums_of, reached = in_groups(sums, 0.0), in_groups(grad, 0.0)
        within, across = sums_of[..., 1:, :], sums_of[..., 1:, :1, :]
        shares = (sums_of[..., :-1, :] - within).clamp(min=LEAST).exp().unbind(-2)
        for share, (row, after) in zip(shares[::-1], _backwards(reached.unbind(-2)), strict=True):
            row.addcmul_(share, after)
        shares = (sums_of[..., :-1, :, :] - across).clamp(min=LEAST).exp().unbind(-3)
        for share, (group, after) in zip(shares[::-1], _backwards(reached.unbind(-3)), strict=True):
            group.addcmul_(share, after[..., :1, :])
        reached = reached.flatten(-3, -2)[..., : grad.shape[-2], :]
        return reached * (terms - sums).clamp(min=LEAST).exp()


def in_groups(rows: Tensor, fill: float) -> Tensor:
    """(.., R, N) -> (.., G, r, N), a copy: about as many groups as a group has rows, the last filled up."""
    count = rows.shape[-2]
    size = max(1, math.isqrt(count))
    groups = -(-count // size)
    filled = rows.new_full((*rows.shape[:-2], groups * size, rows.shape[-1]), fill)
    filled[..., :count, :] = rows
    return filled.unflatten(-2, (groups, size))


def _backwards(rows: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    """Each but the last with the one after it, from the end on."""
    return list(pairwise(rows))[::-1]


def gumbel(count: int, shape: tuple[int, ...], chance: torch.Generator) -> Tensor:
    """(count, *shape) standard Gumbel numbers; fewer drawn from the same chance are the first of them."""
    drawn = torch.empty(count, math.prod(shape), dtype=torch.float64).exponential_(generator=chance)
    return -drawn.clamp(min=torch.finfo(torch.float64).tiny).log().view(count, *shape)


def pair_noise(blocks: int, chance: torch.Generator, like: Tensor) -> Tensor:
    """Gumbel noise (B, H, N, N) for the scores of N blocks, B and H those of `like`."""
    batch, heads = like.shape[:2]
    drawn = gumbel(blocks * blocks, (batch, heads), chance).to(like)
    return drawn.view(blocks, blocks, batch, heads).permute(2, 3, 0, 1)


def earlier_noise(blocks: int, chance: torch.Generator, like: Tensor) -> Tensor:
    """Gumbel noise (B, H, N, N) for the scores of N blocks against earlier ones: more blocks change no row."""
    batch, heads = like.shape[:2]
    noise = like.new_zeros(blocks, blocks, batch, heads)
    row, column = torch.tril_indices(blocks, blocks, -1, device=like.device)
    noise[row, column] = gumbel(len(row), (batch, heads), chance).to(like)
    return noise.permute(2, 3, 0, 1)


def _only(scores: Tensor, allowed: Tensor | None) -> Tensor:
    return scores if allowed is None else scores.masked_fill(~allowed, ABSENT)
