"""Sums over blocks of tokens: of whole blocks, weighted by a matrix, and of the tokens within each."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from formers.native import kept

STRIPS = 2  # in so many a lower triangle is cut; narrower ones leave out more, but are slower


def mix(matrix: Tensor, x: Tensor, block: int) -> Tensor:
    """Blocks of x (B, N * b, H, D) mixed by matrix (B, H, W, N) -> (B, W, b, H, D)."""
    mixed = matrix.to(x.dtype) @ by_head(x, block).flatten(3)
    return mixed.unflatten(3, (block, -1)).permute(0, 2, 3, 1, 4)


def sums_and_firsts(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """blocks (B, N, b, M): the sum of each one's tokens, and its first token, (B, N, M) each."""
    sums, firsts = _SumsAndFirsts.apply(blocks)
    return sums, firsts


def by_head(x: Tensor, block: int) -> Tensor:
    """(B, N * b, H, D) -> (B, H, N, b, D)."""
    return x.unflatten(1, (-1, block)).permute(0, 3, 1, 2, 4)


def mix_earlier(matrix: Tensor, blocks: Tensor) -> Tensor:
    """matrix (R, N, N), with nothing on its diagonal and above it, @ blocks (R, N, C): most of its empty half is left
    out. Without a gradient; the two below are its parts."""
    mixed = kept.empty_like(blocks)
    for weights, given, into in zip(matrix, blocks, mixed, strict=True):
        for rows, earlier in _strips(len(weights)):
            torch.mm(weights[rows, earlier], given[earlier], out=into[rows])
    return mixed


def gradient_by_matrix(grad: Tensor, blocks: Tensor) -> Tensor:
    """Of `mix_earlier`, for one by what it gave."""
    return (grad @ blocks.mT).tril_(-1)


def add_gradient_by_blocks(grad: Tensor, matrix: Tensor, to: Tensor) -> None:
    """The same by the blocks, added to a tensor (R, N, ...) of as many numbers, in any layout."""
    for upstream, weights, into in zip(grad, matrix, to, strict=True):
        for rows, _ in _strips(len(weights)):
            later = slice(rows.start, None)
            into[rows] += (weights[later, rows].mT @ upstream[later]).view_as(into[rows])


def _strips(count: int) -> Iterator[tuple[slice, slice]]:
    """Rows of a lower triangle, and the columns that any of them reaches."""
    height = -(-count // STRIPS)
    for start in range(0, count, height):
        stop = min(start + height, count)
        yield slice(start, stop), slice(0, stop)


class _SumsAndFirsts(torch.autograd.Function):
    """Both in one, since the way back from each alone would fill a tensor of the size of all tokens."""

    @staticmethod
    def forward(ctx: Any, blocks: Tensor) -> tuple[Tensor, Tensor]:
        ctx.tokens = blocks.shape[2]
        return blocks.sum(2), blocks[:, :, 0].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_sums: Tensor, by_firsts: Tensor) -> Tensor:
        grad = by_sums[:, :, None].repeat(1, 1, ctx.tokens, 1)
        grad[:, :, 0] += by_firsts
        return grad
