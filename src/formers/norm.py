"""Normalisation of the residual stream."""

from collections.abc import Iterator

from torch import nn

from formers.spec.core import Site, Spec


class Norm(Spec):
    """Brings each vector to unit scale."""

    eps: float = 1e-5

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if self.eps <= 0:
            yield f"eps keeps a division from 0 and must be positive, got {self.eps}", "eps=1e-05"

    def build(self, site: Site) -> nn.Module:
        raise NotImplementedError


class LayerNorm(Norm):
    """Ba et al. 2016, arXiv:1607.06450: zero mean and unit variance, then a learned gain and, if `bias`, a shift."""

    bias: bool = True

    def build(self, site: Site) -> nn.Module:
        return nn.LayerNorm(site.dim, eps=self.eps, bias=self.bias)


class RMSNorm(Norm):
    """Zhang and Sennrich 2019, arXiv:1910.07467: unit root mean square, then a learned gain."""

    def build(self, site: Site) -> nn.Module:
        return nn.RMSNorm(site.dim, eps=self.eps)
