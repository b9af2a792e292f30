"""Mixing tokens by a Fourier transform, without a parameter. FNet, arXiv:2105.03824."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers.call import Call, Layer, Out
from formers.places import Places
from formers.spec.core import Site


class Fourier(Layer):
    """Re(F_sequence(F_hidden(x))), unnormalised, in place of attention. Lee-Thorp et al. 2021, arXiv:2105.03824.

    Along both axes, and the real part is taken once, at the end. T tokens of M channels cost O(T M (log T + log M)).

    Padding: each row is transformed over its real tokens alone, in their order, as long as they are; so a row gives in a
    padded batch what it gives by itself, wherever the padding stands, and what comes out at padding is 0. Rows of as many
    tokens are transformed together. The published models know no masks: padding is a token to them, so that what a text
    gives depends on how far it is padded. For what they give, call without a mask, and pad as they do.

    Every output is made of all tokens, so there is no causal form, and a decoder refuses it.
    """

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if site.causal:
            what = "a decoder must not see the future, and a Fourier transform mixes all tokens into each"
            yield what, "Attention(heads=8)"

    def build(self, site: Site) -> nn.Module:
        return FourierLayer()


class FourierLayer(nn.Module):
    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        if call.at.real is None:
            return Out(transform(x))
        y = torch.zeros_like(x)
        for place in call.memo.once(("by length", call.at), lambda: by_length(call.at)):
            y = y.index_put(place, transform(x[place]))
        return Out(y)

    def skip(self, x: Tensor, call: Call, state: Any = None) -> None:
        """Nothing is remembered."""


class Rows(NamedTuple):
    """Rows of a batch with the same number of tokens: rows (R, 1), and slots (R, n), where their tokens are, in order."""

    rows: Tensor
    slots: Tensor


def by_length(at: Places) -> list[Rows]:
    """The rows that hold a token, those with equally many together."""
    real = at.real
    if real is None:
        raise ValueError("places without padding are all of one length")
    order, lengths = (~real).int().argsort(dim=1, stable=True), real.sum(1)
    found = []
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()
        found += [Rows(rows, order[rows[:, 0], :length])] if length else []
    return found


def transform(x: Tensor) -> Tensor:
    """Re(FFT over both axes of x (B, N, M))."""
    y: Tensor = _Transform.apply(x)
    return y


class _Transform(torch.autograd.Function):
    """y[t, c] = sum of x[n, m] cos(2 pi (t n / N + c m / M)) is symmetric: the gradient is the same transform."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _transform(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return transform(grad)


def _transform(x: Tensor) -> Tensor:
    """x is real, so channel M - c at place t is channel c at place N - t, conjugate: half of the channels are enough."""
    exact = x if x.dtype in (torch.float32, torch.float64) else x.float()  # there is no transform of shorter numbers
    half = torch.fft.rfft2(exact, dim=(1, 2)).real
    mirrored = half[..., 1 : (x.shape[2] + 1) // 2].flip(1, 2).roll(1, 1)
    return torch.cat([half, mirrored], 2).to(x.dtype)
