"""Operations of matrix products, counted as they are worked out for one token."""

from torch import nn

from formers.depth.separable import ChannelConv
from formers.position.infinite import InfiniteLayer
from formers.sparse.convolution import ModuleConv
from formers.sparse.low_rank import LowRankLinear
from formers.sparse.modular import ModularLinear
from formers.sparse.multiplicative import MultiplicativeLinear


def by_matrices(module: nn.Module) -> int:
    """Operations of all of a module's matrices for one token, a multiplication and an addition as two."""
    return sum(2 * _multiplied(inner) for inner in module.modules())


def _multiplied(inner: nn.Module) -> int:
    if isinstance(inner, (nn.Linear, ChannelConv)):
        return inner.weight.numel()
    if isinstance(inner, MultiplicativeLinear):  # few weights, and as many products as a dense layer's
        return len(inner.gate) * inner.mix.numel()
    if isinstance(inner, (ModuleConv, ModularLinear, LowRankLinear)):
        return inner.products
    if isinstance(inner, InfiniteLayer) and inner.spec.transform == "any":
        return inner.matrix.numel()
    return 0
