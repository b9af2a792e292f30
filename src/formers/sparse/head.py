"""Sparse heads: logits of the whole vocabulary from few weights."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from formers.call import Call
from formers.head import Head, Untied
from formers.sparse.low_rank import LowRankLinear
from formers.sparse.modular import ModularLinear
from formers.sparse.multiplicative import Begin, MultiplicativeLinear, nearest_divisor
from formers.spec.core import Site


class MultiplicativeHead(Head):
    """A multiplicative layer as the last product. Jaszczur et al. 2021, arXiv:2111.12763.

    modules: into how many the vocabulary is cut; it is filled up to a multiple of them with tokens that have no logits.
    The paper has 4 and 8. init: see `Begin`.
    """

    modules: int = 4
    bias: bool = True
    init: Begin = "fan"

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from cut_problems(self.modules, site)

    def build(self, site: Site) -> nn.Module:
        filled = fill(site.vocab, self.modules)
        return CutHead(MultiplicativeLinear(site.dim, filled, self.modules, self.bias, self.init), site.vocab)


class LowRankHead(Head):
    """Two products, through a middle of `rank` numbers. arXiv:2111.12763, code. init: see `Begin`."""

    rank: int = 64
    bias: bool = True
    init: Begin = "fan"

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.rank < 1:
            yield f"nothing passes a middle of {self.rank} numbers", "rank=64"

    def build(self, site: Site) -> nn.Module:
        return CutHead(LowRankLinear(site.dim, site.vocab, self.rank, self.bias, self.init), site.vocab)


class LocalHead(Head):
    """Each of `modules` parts of the vocabulary is told from as many parts of the stream, `width` of them side by side
    in a circle. arXiv:2111.12763, code. The vocabulary is filled up as in MultiplicativeHead. init: see `Begin`."""

    modules: int = 4
    width: int = 1
    bias: bool = True
    init: Begin = "fan"

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from cut_problems(self.modules, site)
        if self.modules > 0 and site.dim % self.modules:
            what = f"a stream of {site.dim} numbers does not split into {self.modules} modules"
            yield what, f"modules={nearest_divisor(site.dim, self.modules)}"
        if self.width < 1 or self.width % 2 == 0 or self.width > self.modules:
            yield f"of {self.modules} modules in a circle, {self.width} have no middle one", "width=1"

    def build(self, site: Site) -> nn.Module:
        filled = fill(site.vocab, self.modules)
        return CutHead(ModularLinear(site.dim, filled, self.modules, self.width, self.bias, self.init), site.vocab)


class CutHead(nn.Module):
    """A layer's first outputs as logits."""

    def __init__(self, proj: nn.Module, vocab: int) -> None:
        super().__init__()
        self.proj, self.vocab = proj, vocab

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """hidden (..., M) -> logits (..., V)."""
        logits: Tensor = self.proj(hidden)
        return logits[..., : self.vocab]


class Mixed(Head):
    """A head that in training is now and then replaced by a dense one, each with parameters of its own.

    In each training step one draw from the seed of the call takes `head` with that probability and the dense one
    otherwise, for all tokens; outside training it is always `head`. arXiv:2111.12763, code.
    """

    head: Head
    probability: float

    @property
    def tied(self) -> bool:
        return self.head.tied

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not 0 < self.probability < 1:
            mend = f"head={self.head!r}" if self.probability == 1 else "probability=0.5"
            yield f"with probability {self.probability} there are not two heads to draw from", mend

    def build(self, site: Site) -> nn.Module:
        return MixedHead(self, site)


class MixedHead(nn.Module):
    """sparse, and dense."""

    def __init__(self, spec: Mixed, site: Site) -> None:
        super().__init__()
        self.probability, self.path = spec.probability, site.path
        self.sparse, self.dense = spec.head.build(site), Untied(bias=True).build(site)

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        logits: Tensor = self.sparse(hidden, table)
        return logits

    @torch.compiler.disable
    def drawn(self, call: Call) -> nn.Module:
        """The one that this call reads by."""
        if not self.training or float(torch.rand((), generator=call.chance(self.path))) < self.probability:
            return self.sparse
        return self.dense


def fill(vocab: int, modules: int) -> int:
    """A vocabulary and as many more as make it a multiple of the modules."""
    return -(-vocab // modules) * modules


def cut_problems(modules: int, site: Site) -> Iterator[tuple[str, str]]:
    """What is wrong with a number of parts of the vocabulary."""
    if not 1 <= modules <= max(1, site.vocab):
        yield f"a vocabulary of {site.vocab} tokens cannot be cut into {modules} modules", "modules=4"
