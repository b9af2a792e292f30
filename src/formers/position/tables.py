"""Learned tables that begin as sinusoids, or are the product of two narrow matrices."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from formers.call import Call
from formers.places import Places
from formers.position.absolute import AbsoluteLayer, Learned, refuse_past_end, sinusoid
from formers.position.start import chance_of_order, drawn_below, moved
from formers.products import Matrix
from formers.spec.core import Site


class LearnedSinusoidal(Learned):
    """A learned vector for each of `length` positions, which begins as the sinusoid of Vaswani et al. 2017,
    arXiv:1706.03762. What Scaling Transformers begin from, Jaszczur et al. 2021, arXiv:2111.12763.

    offset: training begins each row at a place from 0 to this many positions on, as far as the table reaches, so that
    places at its end are learned from short texts too. Differs from trax, which draws one start for the whole batch.
    """

    offset: int = 0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if site.dim % 2:
            yield f"sines and cosines come in pairs, but dim is {site.dim}", f"dim={site.dim + 1}"
        if not 0 <= self.offset < max(1, self.length):
            yield f"no start lies {self.offset} positions into a table of {self.length}", "offset=0"

    def build(self, site: Site) -> AbsoluteLayer:
        return LearnedSinusoidalLayer(self, site)


class LearnedSinusoidalLayer(AbsoluteLayer):
    def __init__(self, spec: LearnedSinusoidal, site: Site) -> None:
        super().__init__()
        self.spec, self.path = spec, site.path
        # A parameter and no nn.Embedding, which a model's initialisation would begin otherwise.
        waves = sinusoid(torch.arange(spec.length), site.dim, "interleaved", torch.get_default_dtype())
        self.table = nn.Parameter(waves)

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        refuse_past_end(places, self.spec.length)
        return self.table[places.pos.clamp(max=self.spec.length - 1)].to(dtype)

    def placed(self, x: Tensor, call: Call) -> Places:
        if not (self.training and self.spec.offset):
            return call.at
        room = self.spec.length - 1 - call.at.bounds[1]
        limit = min(self.spec.offset, room) + 1
        return moved(call.at, drawn_below(limit, len(x), chance_of_order(call, self.path)))

    def read_by_row(self) -> list[Tensor]:
        return [self.table]


class LearnedLowRank(Learned):
    """A learned vector of `rank` numbers for each of `length` positions, and one matrix from there to the model's width.

    As the Terraformer that summarises articles has it (arXiv:2111.12763, in trax): (length, 64) times (64, dim).
    """

    rank: int = 64

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from super().problems(site)
        if self.rank < 1:
            yield f"a table of rank {self.rank} holds nothing", "rank=64"

    def build(self, site: Site) -> AbsoluteLayer:
        return LearnedLowRankLayer(self, site.dim)


class LearnedLowRankLayer(AbsoluteLayer):
    def __init__(self, spec: LearnedLowRank, dim: int) -> None:
        super().__init__()
        self.table = nn.Embedding(spec.length, spec.rank)
        self.up = Matrix(spec.rank, dim, bias=False)

    def vectors(self, places: Places, dtype: torch.dtype) -> Tensor:
        refuse_past_end(places, self.table.num_embeddings)
        return self.up(self.table(places.pos.clamp(max=self.table.num_embeddings - 1))).to(dtype)
