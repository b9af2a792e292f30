"""Compressions: how the vectors of a segment become fewer. Rae et al. 2019, arXiv:1911.05507, section 3.2."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.spec.core import Site, Spec


class SegmentCompression(Spec):
    """A rule of compressing, built at the site of an attention.

    rate: how many vectors become one. learns: whether it has parameters, which a loss can train.
    """

    rate: int = 4
    learns: ClassVar[bool] = False

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.rate < 1:
            yield f"no {self.rate} vectors become one", "rate=4"

    def build(self, site: Site) -> "CompressionLayer":
        raise NotImplementedError


class CompressionLayer(nn.Module):
    """by_use: it asks how much attention each vector got."""

    by_use = False

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, use: Tensor | None = None) -> Tensor:
        """x (B, n, M), n a multiple of the rate, to (B, n / rate, M). use: (B, n), the attention that each got."""
        raise NotImplementedError


class MeanCompression(SegmentCompression):
    """The mean of so many neighbours."""

    def build(self, site: Site) -> CompressionLayer:
        return MeanCompressionLayer(self.rate)


class MeanCompressionLayer(CompressionLayer):
    def forward(self, x: Tensor, use: Tensor | None = None) -> Tensor:
        return x.unflatten(1, (-1, self.rate)).mean(2)


class MaxCompression(SegmentCompression):
    """The greatest of so many neighbours, number by number."""

    def build(self, site: Site) -> CompressionLayer:
        return MaxCompressionLayer(self.rate)


class MaxCompressionLayer(CompressionLayer):
    def forward(self, x: Tensor, use: Tensor | None = None) -> Tensor:
        return x.unflatten(1, (-1, self.rate)).amax(2)


class ConvCompression(SegmentCompression):
    """A convolution over so many neighbours: kernel and stride are the rate."""

    learns: ClassVar[bool] = True

    def build(self, site: Site) -> CompressionLayer:
        return ConvCompressionLayer(self.rate, site.dim)


class ConvCompressionLayer(CompressionLayer):
    """dilation: how far the taps are apart; where they go past the segment, they meet zeros."""

    def __init__(self, rate: int, dim: int, dilation: int = 1) -> None:
        super().__init__(rate)
        beyond = (dilation - 1) * (rate - 1)
        self.beyond = (beyond // 2, beyond - beyond // 2)
        self.conv = nn.Conv1d(dim, dim, rate, stride=rate, dilation=dilation)

    def forward(self, x: Tensor, use: Tensor | None = None) -> Tensor:
        return self.conv(F.pad(x.mT, self.beyond)).mT


class DilatedCompression(SegmentCompression):
    """A convolution whose taps stand `dilation` vectors apart, so that each output sees further to both sides.

    The paper leaves kernel and padding open: ours has as many taps as the rate, and never looks past the segment.
    """

    dilation: int = 2
    learns: ClassVar[bool] = True

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if self.dilation < 1:
            yield f"taps cannot stand {self.dilation} vectors apart", "dilation=2"

    def build(self, site: Site) -> CompressionLayer:
        return ConvCompressionLayer(self.rate, site.dim, self.dilation)


class MostUsedCompression(SegmentCompression):
    """Those vectors that got the most attention, in their order; the others are forgotten.

    Use is the mean attention, over heads and over the queries of the latest segment that could see the vectors.
    """

    def build(self, site: Site) -> CompressionLayer:
        return MostUsedCompressionLayer(self.rate)


class MostUsedCompressionLayer(CompressionLayer):
    by_use = True

    def forward(self, x: Tensor, use: Tensor | None = None) -> Tensor:
        if use is None:
            raise ValueError("the most used vectors are asked for, and nobody says how much each was used")
        best = use.topk(x.shape[1] // self.rate, dim=1).indices.sort(1).values
        return torch.take_along_dim(x, best[..., None], 1)
