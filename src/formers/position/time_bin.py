"""Positions as three numbers: which bin, how far into it, and whether the bin is odd."""

from collections.abc import Iterator

import torch
from torch import Tensor

from formers.call import Call
from formers.places import Places
from formers.position.absolute import AbsoluteLayer, AbsolutePosition
from formers.spec.core import Site


class TimeBin(AbsolutePosition):
    """The last three channels become 1 / (1 + bin), the fraction of the bin that has passed, and the bin modulo 2, where
    bin = position // length. One of the position kinds of Terraformer, arXiv:2111.12763.

    It is described nowhere but in trax, as company for attention within bins of that length. The channels are replaced,
    not added to, so a token has three numbers fewer to itself. Learns nothing. The length that was used is unknown.
    """

    length: int = 64

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.length < 1:
            yield f"a bin of {self.length} positions never ends", "length=64"
        if site.dim < 4:
            yield f"three channels of {site.dim} leave none for the token", "dim=8"

    def build(self, site: Site) -> AbsoluteLayer:
        return TimeBinLayer(self)


class TimeBinLayer(AbsoluteLayer):
    def __init__(self, spec: TimeBin) -> None:
        super().__init__()
        self.length = spec.length

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        """The three numbers alone, (1 or B, T, 3)."""
        exact = torch.promote_types(dtype, torch.float32)
        number, inside = places.pos // self.length, places.pos % self.length
        told = 1 / (1 + number.to(exact)), inside.to(exact) / self.length, (number % 2).to(exact)
        return torch.stack(told, -1).to(dtype)

    def forward(self, x: Tensor, call: Call) -> Tensor:
        told = self.vectors(call.at, x.dtype)
        return torch.cat([x[..., :-3], told.expand(*x.shape[:2], 3)], -1)
