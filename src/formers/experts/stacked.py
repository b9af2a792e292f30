"""The weights of all experts in one tensor, and three ways to multiply by them."""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from formers.experts.init import truncated_
from formers.native import kept
from formers.products.multiply import multiply, multiply_all


class StackedLinear(nn.Module):
    """W_e x + b_e for each expert e: weight (N, O, I), bias (N, O) or None.

    Weights begin as `Truncated(scale)` says, biases at 0.
    """

    def __init__(self, count: int, inputs: int, outputs: int, *, bias: bool = True, scale: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(count, outputs)) if bias else None
        truncated_(self.weight, scale)

    def forward(self, seats: Tensor) -> Tensor:
        """seats (N, S, I), as many for each expert -> (N, S, O)."""
        if self.bias is None:
            return torch.bmm(seats, self.weight.mT)
        return torch.baddbmm(self.bias[:, None], seats, self.weight.mT)

    def grouped(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """rows (n, I), the first sizes[0] of them for expert 0, the next sizes[1] for expert 1, ... -> (n, O)."""
        kind = rows.device.type
        if torch.is_autocast_enabled(kind):
            rows = rows.to(torch.get_autocast_dtype(kind))
        with torch.autocast(kind, enabled=False):
            made: Tensor = _Grouped.apply(rows, self.weight, self.bias, tuple(sizes))
        return made

    def alone(self, x: Tensor, expert: int) -> Tensor:
        """x (n, I) by one expert -> (n, O). No other expert's weights are read; without gradients."""
        return F.linear(x, self.weight[expert], None if self.bias is None else self.bias[expert])


class _Grouped(torch.autograd.Function):
    """One product for each expert, in the type of the rows, written where it belongs.

    Autograd would fill a gradient of the size of all experts for each of them, and autocast would copy all their weights:
    here one expert's at a time is brought to the type of the rows, and is still in the cache when it is needed.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, sizes: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.sizes, ctx.biased = sizes, bias is not None
        made = kept.new_empty(rows, (len(rows), weight.shape[1]))
        groups = list(_groups(sizes))
        outs, fed = ([given[own] for _, own in groups] for given in (made, rows))
        by = [weight[expert].mT for expert, _ in groups]
        _by_experts(outs, fed, by, [] if bias is None else [bias[expert] for expert, _ in groups])
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        by_rows, by_weight, by_bias, _ = ctx.needs_input_grad
        d_rows = kept.empty_like(rows) if by_rows else None
        d_weight = kept.empty_like(weight) if by_weight else None
        d_bias = weight.new_zeros(weight.shape[:2]) if ctx.biased and by_bias else None
        groups = list(_groups(ctx.sizes))
        grads, fed = ([given[own] for _, own in groups] for given in (upstream, rows))
        if d_rows is not None:
            _by_experts([d_rows[own] for _, own in groups], grads, [weight[expert] for expert, _ in groups], [])
        if d_weight is not None:
            _write([d_weight[expert] for expert, _ in groups], [grad.mT for grad in grads], fed)
        if d_bias is not None:
            for (expert, _), grad in zip(groups, grads, strict=True):
                d_bias[expert] = grad.sum(0)
        if d_weight is not None:
            for expert in (expert for expert, size in enumerate(ctx.sizes) if not size):
                d_weight[expert].zero_()
        return d_rows, d_weight, d_bias, None


def _by_experts(outs: list[Tensor], rows: list[Tensor], weights: list[Tensor], biases: list[Tensor]) -> None:
    """rows @ weights + biases, in the type of the rows."""
    kind = outs[0].dtype if outs else None
    if all(weight.dtype == kind for weight in weights):
        multiply_all(outs, rows, weights, biases)
        return
    for out, own, weight, bias in zip(outs, rows, weights, biases or repeat(None, len(outs)), strict=True):
        multiply(own, weight.to(kind), None if bias is None else bias.to(kind), out=out)


def _write(into: list[Tensor], left: list[Tensor], right: list[Tensor]) -> None:
    """left @ right, which may be of another type."""
    if all(each.dtype == of.dtype for each, of in zip(into, left, strict=True)):
        multiply_all(into, left, right, [])
    else:
        for each, a, b in zip(into, left, right, strict=True):
            each.copy_(a @ b)


def _groups(sizes: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Each expert that has any rows, and which."""
    start = 0
    for expert, size in enumerate(sizes):
        if size:
            yield expert, slice(start, start + size)
        start += size
