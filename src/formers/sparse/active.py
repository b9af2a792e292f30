"""A feed-forward of which only chosen units are computed, forwards and backwards."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from formers.native import units as native

# Gathering pays for up to one token in so many units of a block: a column of `down` takes a cache line for each number.
GATHERED = 32
# The native kernels want rows of `down`, so it is turned round first, which pays from so many tokens for each of them.
TURNED = 2


class Weights(NamedTuple):
    """up (F, M), down (M, F), bias (M). block: units of which one is chosen."""

    up: Tensor
    down: Tensor
    bias: Tensor
    block: int


def pays(x: Tensor, weights: Weights) -> bool:
    """Whether to compute the chosen units alone is faster, for x (B, T, M), than to compute all of them."""
    return _tokens(x) * GATHERED <= weights.block or refuses(x, weights) is None


def refuses(x: Tensor, weights: Weights) -> str | None:
    """Why the chosen units are not computed alone by the native kernels, in words; None where they are."""
    least = TURNED * weights.block
    if _tokens(x) < least:
        return f"the native kernels are faster from {least} tokens on, and these are {_tokens(x)}"
    if torch.is_autocast_enabled(x.device.type):
        return "the native kernels multiply float32, and autocast asks for less"
    return native.refuses_units(x, weights.up, weights.down)


def active_alone(
    x: Tensor, picked: Tensor, weights: Weights, gate: Tensor | None = None, worth: Tensor | None = None
) -> Tensor:
    """down(relu(up(x) * gate) * worth) + bias, of the picked units (B, T, K) alone: gate and worth are (B, T, K), too."""
    by_native = refuses(x, weights) is None
    units = (_native_units if by_native else _gathered_units)(x, picked, weights)
    if gate is not None:
        units = units * gate.to(units.dtype)
    active = F.relu(units)
    if worth is not None:
        active = active * worth.to(active.dtype)
    return (_native_sums if by_native else _gathered_sums)(active, picked, weights)


def _tokens(x: Tensor) -> int:
    return x.shape[0] * x.shape[1]


def _gathered_units(x: Tensor, picked: Tensor, weights: Weights) -> Tensor:
    return (F.embedding(_rows(picked, weights), weights.up) @ x[..., None]).squeeze(-1)


def _gathered_sums(active: Tensor, picked: Tensor, weights: Weights) -> Tensor:
    return (active[..., None, :] @ F.embedding(_rows(picked, weights), weights.down.t())).squeeze(-2) + weights.bias


def _rows(picked: Tensor, weights: Weights) -> Tensor:
    """Units by their numbers among all."""
    return picked.long() + torch.arange(picked.shape[-1], device=picked.device) * weights.block


def _native_units(x: Tensor, picked: Tensor, weights: Weights) -> Tensor:
    units: Tensor = _Products.apply(x.flatten(0, 1), weights.up, picked.flatten(0, 1))
    return units.view(picked.shape)


def _native_sums(active: Tensor, picked: Tensor, weights: Weights) -> Tensor:
    y: Tensor = _Sums.apply(active.flatten(0, 1), weights.down, weights.bias, picked.flatten(0, 1))
    return y.view(*active.shape[:2], -1)


class _Products(torch.autograd.Function):
    """x (R, M) by one row of the matrix (K N, M) in each block: (R, K)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, picked: Tensor) -> Tensor:
        ctx.save_for_backward(x, matrix, picked)
        return native.products(x, matrix, picked)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, matrix, picked = ctx.saved_tensors
        by_x = native.sums(slope, matrix, picked) if ctx.needs_input_grad[0] else None
        by_matrix = native.outers(slope, x, picked, len(matrix) // picked.shape[1]) if ctx.needs_input_grad[1] else None
        return by_x, by_matrix, None


class _Sums(torch.autograd.Function):
    """Values (R, K) by one column of `down` (M, K N) in each block, summed, plus bias (M): (R, M)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, down: Tensor, bias: Tensor, picked: Tensor) -> Tensor:
        matrix = down.t().contiguous()
        ctx.save_for_backward(values, matrix, picked)
        return native.sums(values, matrix, picked, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        values, matrix, picked = ctx.saved_tensors
        by_values = native.products(slope, matrix, picked) if ctx.needs_input_grad[0] else None
        size = len(matrix) // picked.shape[1]
        by_down = native.outers(values, slope, picked, size, turned=True) if ctx.needs_input_grad[1] else None
        by_bias = slope.sum(0) if ctx.needs_input_grad[2] else None
        return by_values, by_down, by_bias, None
