"""Residual rules: how the sublayers of a block read from the stream and write to it."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from formers.call import Layer
from formers.norm import LayerNorm, Norm
from formers.spec.core import Site, Spec

Sublayer = Callable[[Tensor], Tensor]


class Residual(Spec):
    """dropout: rate at which each sublayer's output is dropped before it joins the stream."""

    norm: Norm = LayerNorm()
    dropout: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from dropout_problems(self.dropout)

    def build(self, site: Site, sublayers: Sequence[Layer]) -> "ResidualRule":
        """The rule for a block of these sublayers."""
        raise NotImplementedError


class ResidualRule(nn.Module):
    def __init__(self, spec: Residual, site: Site, sublayers: Sequence[Layer]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(spec.norm.build(site) for _ in sublayers)
        self.rate = spec.dropout

    def dropout(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.rate) if self.training and self.rate else x

    def forward(self, x: Tensor, sublayers: Sequence[Sublayer]) -> Tensor:
        """x (B, T, M) with every sublayer joined to it, each called once and in order."""
        raise NotImplementedError


class PreNorm(Residual):
    """x + f(norm(x)): GPT-2 and most models since (Xiong et al. 2020, arXiv:2002.04745).

    A sublayer that norms what it reads by itself is given x as it is.
    """

    def build(self, site: Site, sublayers: Sequence[Layer]) -> ResidualRule:
        return PreNormRule(self, site, sublayers)


class PreNormRule(ResidualRule):
    def __init__(self, spec: Residual, site: Site, sublayers: Sequence[Layer]) -> None:
        super().__init__(spec, site, sublayers)
        for i, sublayer in enumerate(sublayers):
            if sublayer.norms_itself:
                self.norms[i] = nn.Identity()

    def forward(self, x: Tensor, sublayers: Sequence[Sublayer]) -> Tensor:
        for norm, sublayer in zip(self.norms, sublayers, strict=True):
            x = x + self.dropout(sublayer(norm(x)))
        return x


class PostNorm(Residual):
    """norm(x + f(x)): Vaswani et al. 2017, arXiv:1706.03762, and BERT."""

    def build(self, site: Site, sublayers: Sequence[Layer]) -> ResidualRule:
        return PostNormRule(self, site, sublayers)


class PostNormRule(ResidualRule):
    def forward(self, x: Tensor, sublayers: Sequence[Sublayer]) -> Tensor:
        for norm, sublayer in zip(self.norms, sublayers, strict=True):
            x = norm(x + self.dropout(sublayer(x)))
        return x


def dropout_problems(rate: float) -> Iterator[tuple[str, str]]:
    """What is wrong with a dropout rate."""
    if not 0 <= rate < 1:
        yield f"a dropout rate is at least 0 and below 1, got {rate}", "dropout=0.1"
