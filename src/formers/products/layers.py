"""Products with the matrices of layers, and their gradients: several of one input are added up by the products themselves."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.products.multiply import multiply, parts_of_tiles

SHORT = 1 << 17  # numbers of x up to which adding a few gradients costs less than a step of autograd in Python


class Matrix(nn.Linear):
    """y = W x + b, (..., M) to (..., N), by the fastest product that is as exact as PyTorch is asked to be."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: x (..., M) by weight (N, M), plus bias (N,) if there is one."""
    if not _by_tiles(x, weight):
        return F.linear(x, weight, bias)
    found: tuple[Tensor, ...] = _Products.apply(x, weight, bias)
    return found[0]


def products(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """layer(x) for x (..., M) and each layer M -> N, (..., N) each.

    Autograd would make a gradient of the size of x for every layer and add them up in passes of their own; here one
    buffer is added to by the products. For plain float layers; whatever else stands in their place is simply called.
    """
    if not _simple(x, layers):
        return tuple(layer(x) for layer in layers)
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    found: tuple[Tensor, ...] = _Products.apply(x, *weights, *biases)
    return found


def _by_tiles(x: Tensor, weight: Tensor) -> bool:
    """Whether to leave PyTorch's way, of which a step of autograd in Python is the price."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type):
        return False
    if x.dim() < 2 or x.shape[-1] != weight.shape[-1]:
        return False
    return parts_of_tiles([(x.shape[:-1].numel(), weight.shape[0], weight.shape[1])], x, weight) is not None


def _simple(x: Tensor, layers: tuple[nn.Linear, ...]) -> bool:
    if (
        x.numel() <= SHORT
        or not torch.is_grad_enabled()
        or torch.is_autocast_enabled(x.device.type)
        or torch.compiler.is_compiling()
    ):
        return False
    return all(
        type(layer) in (nn.Linear, Matrix) and type(layer.weight) is nn.Parameter and not _hooked(layer)
        for layer in layers
    )


def _hooked(layer: nn.Linear) -> bool:
    """Whether somebody wants to be told when it is called."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, *parameters: Tensor | None) -> tuple[Tensor, ...]:
        weights, biases = _halves(parameters)
        rows, shape = x.reshape(-1, x.shape[-1]), x.shape[:-1]
        return tuple(
            multiply(rows, weight.mT, bias).view(*shape, len(weight))
            for weight, bias in zip(weights, biases, strict=True)
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, *parameters = inputs
        weights, biases = _halves(tuple(parameters))
        ctx.save_for_backward(x, *weights)
        ctx.biased = [bias is not None for bias in biases]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        wanted, count = ctx.needs_input_grad, len(weights)
        rows, grads = x.flatten(0, -2), [grad.reshape(-1, grad.shape[-1]) for grad in upstream]
        by_x = _summed(grads, weights).view_as(x) if wanted[0] else None
        by_weight = [
            _product(grad.mT, rows) if needed else None
            for grad, needed in zip(grads, wanted[1 : count + 1], strict=True)
        ]
        by_bias = [
            grad.sum(0) if biased and needed else None
            for grad, biased, needed in zip(grads, ctx.biased, wanted[count + 1 :], strict=True)
        ]
        return by_x, *by_weight, *by_bias


def _halves(parameters: tuple[Any, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """The weights and the biases."""
    count = len(parameters) // 2
    return parameters[:count], parameters[count:]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, by PyTorch while the gradient itself is to be differentiated."""
    return a @ b if torch.is_grad_enabled() else multiply(a, b)


def _summed(grads: list[Tensor], weights: list[Tensor]) -> Tensor:
    """The sum of grad @ weight, in one buffer; in new ones while the gradient itself is to be differentiated."""
    by_x = _product(grads[0], weights[0])
    for grad, weight in zip(grads[1:], weights[1:], strict=True):
        by_x = by_x.addmm(grad, weight) if torch.is_grad_enabled() else multiply(grad, weight, out=by_x, add=True)
    return by_x
