"""Separable convolutions as a feed-forward sublayer, the second transition of the Universal Transformer."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Call, Layer, Out
from formers.feedforward import ACTIVATIONS, Activation
from formers.init import ResidualLinear
from formers.places import Places
from formers.products import Matrix
from formers.residual import dropout_problems
from formers.sparse.convolution import unbroken
from formers.spec.core import Site


class SeparableConv(Layer):
    """down(conv(activation(up(conv(x))))): each of the two matrices stands behind a convolution of each channel by itself.

    Chollet 2017, arXiv:1610.02357, as a transition of the Universal Transformer, Dehghani et al. 2018, arXiv:1807.03819.
    lengths: of the two kernels, in tokens. In a decoder a kernel ends with its own token, in an encoder it stands around
    it, a kernel of an even length with one more behind; tokens are real ones, wherever padding stands, and 0 where there
    are none. dropout: rate at which hidden units are dropped. Its state is the last inputs of both convolutions.
    """

    hidden: int
    lengths: tuple[int, int] = (3, 31)
    activation: Activation = "relu"
    bias: bool = True
    dropout: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.hidden < 1:
            yield f"a feed-forward of {self.hidden} units computes nothing", f"hidden={4 * site.dim}"
        if min(self.lengths) < 1:
            yield f"kernels of {self.lengths} tokens do not both see something", "lengths=(3, 31)"
        yield from dropout_problems(self.dropout)

    def build(self, site: Site) -> nn.Module:
        return SeparableConvLayer(self, site)


class Tails(NamedTuple):
    """The last inputs of the two convolutions: (B, length - 1, M) and (B, length - 1, F)."""

    inputs: Tensor
    units: Tensor


class SeparableConvLayer(nn.Module):
    def __init__(self, spec: SeparableConv, site: Site) -> None:
        super().__init__()
        self.spec = spec
        self.activation = ACTIVATIONS[spec.activation]
        self.up_conv = ChannelConv(site.dim, spec.lengths[0], causal=site.causal)
        self.up = Matrix(site.dim, spec.hidden, bias=spec.bias)
        self.down_conv = ChannelConv(spec.hidden, spec.lengths[1], causal=site.causal)
        self.down = ResidualLinear(spec.hidden, site.dim, bias=spec.bias)

    def forward(self, x: Tensor, call: Call, state: Tails | None = None, choices: Any = None) -> Out:
        before = (None, None) if state is None else state
        y, inputs = self.up_conv(x, call.at, before[0])
        units = self.activation(self.up(y))
        units = F.dropout(units, self.spec.dropout, self.training) if self.spec.dropout else units
        y, seen = self.down_conv(units, call.at, before[1])
        return Out(self.down(y), Tails(inputs, seen) if call.remember else None)


class ChannelConv(nn.Module):
    """A convolution of each channel by itself: y[t, c] = sum_j x[t + j - (length - 1) + ahead, c] weight[c, j].

    weight (M, length). ahead: how many tokens behind its own an output depends on, none of them in a decoder. No `Init`
    sets it: it begins at N(0, length^-0.5).
    """

    def __init__(self, dim: int, length: int, *, causal: bool) -> None:
        super().__init__()
        self.ahead = 0 if causal else length // 2
        self.weight = nn.Parameter(torch.empty(dim, length))
        nn.init.normal_(self.weight, std=length**-0.5)

    def forward(self, x: Tensor, at: Places, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """x (B, T, M) -> y (B, T, M), and the last inputs (B, length - 1, M), for the next call to be given as `past`."""
        met, ahead = unbroken(x, at, past, self.weight.shape[1] - 1), self.ahead
        rows = met.rows
        if ahead:
            rows = F.pad(_without_padding(rows, at)[:, ahead:], (0, 0, 0, ahead))
        y = F.conv1d(rows.mT, self.weight[:, None], groups=rows.shape[2]).mT
        return met.put_back(y), met.tail


def _without_padding(rows: Tensor, at: Places) -> Tensor:
    """What `unbroken` has made, with 0 where padding was left behind the real tokens of a row."""
    if at.real is None:
        return rows
    place = torch.arange(rows.shape[1], device=rows.device) - (rows.shape[1] - at.length)
    return rows.masked_fill((place >= at.real.sum(1, keepdim=True))[..., None], 0)
