"""Positions by their digits in several bases, for texts of any length."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from formers.call import Call
from formers.places import Places
from formers.position.absolute import AbsoluteLayer, AbsolutePosition
from formers.position.start import chance_of_order, drawn_below, moved
from formers.residual import dropout_problems
from formers.spec.core import Site

BEGINNING = 1e-4  # digit vectors, and the start, begin uniform within this of 0; the start's is our own choice


class FixedBase(AbsolutePosition):
    """Digit i of the position in base b, times a learned vector of base and digit; digits side by side, bases summed.

    As in Terraformer, Jaszczur et al. 2021, arXiv:2111.12763 (described in trax only). The first token of a row also gets
    a learned start vector. There are bases * dim numbers for any length; positions are told apart up to the product of all
    the powers base^digits, which nothing reaches.

    In training each row begins at a random position below the least base^digits, but for the share `from_zero` of them;
    and the share `dropped` of rows has no digits at all, only its start. Evaluation begins at 0.
    """

    bases: tuple[int, ...] = (11, 13, 14, 15)
    digits: int = 8
    from_zero: float = 0.5
    dropped: float = 0.01

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if (
            not self.bases
            or min(self.bases) < 2
            or self.digits < 1
            or min(self.bases, default=2) ** self.digits > 2**62
        ):
            what = f"{self.digits} digits in the bases {self.bases} do not write positions that a computer counts to"
            yield what, "bases=(11, 13, 14, 15), digits=8"
        elif site.dim % self.digits:
            near = max(1, round(site.dim / self.digits)) * self.digits
            yield f"{self.digits} digits do not share a width of {site.dim} evenly", f"dim={near}"
        if not 0 <= self.from_zero <= 1:
            yield f"{self.from_zero} is no share of rows", "from_zero=0.5"
        yield from dropout_problems(self.dropped)

    def build(self, site: Site) -> AbsoluteLayer:
        return FixedBaseLayer(self, site)


class FixedBaseLayer(AbsoluteLayer):
    def __init__(self, spec: FixedBase, site: Site) -> None:
        super().__init__()
        self.spec, self.path = spec, site.path
        shape = len(spec.bases), spec.digits, site.dim // spec.digits
        self.scales = nn.Parameter(torch.empty(shape).uniform_(-BEGINNING, BEGINNING))
        self.start = nn.Parameter(torch.empty(site.dim).uniform_(-BEGINNING, BEGINNING))

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        return (self._written(places.pos) + self._beginning(places.pos)).to(dtype)

    def forward(self, x: Tensor, call: Call) -> Tensor:
        if not self.training:
            return super().forward(x, call)
        chance, rows = chance_of_order(call, self.path), len(x)
        limit = min(self.spec.bases) ** self.spec.digits - 1 - call.at.bounds[1]
        starts = drawn_below(limit, rows, chance)
        starts[torch.rand(rows, generator=chance) < self.spec.from_zero] = 0
        kept = (torch.rand(rows, generator=chance) >= self.spec.dropped).to(x.device)
        digits = self._written(moved(call.at, starts).pos) * kept[:, None, None]
        return x + (digits + self._beginning(call.at.pos)).to(x.dtype)

    def _written(self, pos: Tensor) -> Tensor:
        """pos (R, T) -> the digits of all bases, (R, T, M)."""
        written = []
        for base, scales in zip(self.spec.bases, self.scales, strict=True):
            powers = torch.tensor([base**i for i in range(self.spec.digits)], device=pos.device)
            digits = pos[..., None] // powers % base
            written.append((digits[..., None].to(scales.dtype) * scales).flatten(-2))
        return torch.stack(written).sum(0)

    def _beginning(self, pos: Tensor) -> Tensor:
        return (pos == 0)[..., None].to(self.start.dtype) * self.start
