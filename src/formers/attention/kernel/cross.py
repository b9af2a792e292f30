"""Attention by features to an encoder's output, which is summed over once."""

from collections.abc import Iterator

from torch import Tensor, nn

from formers.attention.across import AcrossLayer, across_problems
from formers.attention.kernel.features import FeatureMap
from formers.attention.kernel.fourier import RandomFourier
from formers.attention.kernel.sums import Sums
from formers.attention.kernel.whole import read, sum_over
from formers.attention.layer import head_problems, heads_inside
from formers.attention.project import Dense, Projection
from formers.call import Call, Encoded, Layer
from formers.spec.core import Site


class KernelCrossAttention(Layer):
    """Queries from the decoder, keys and values from the encoder's output, with weights phi(q) . phi(k). Peng et al. 2021,
    arXiv:2103.02143.

    The state is the sums over the encoder's output: a token costs the same for a source of any length. heads, head_dim,
    projection: as of cross-attention; features: phi.
    """

    heads: int
    head_dim: int | None = None
    features: FeatureMap = RandomFourier()
    projection: Projection = Dense()

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, self.head_dim, site)
        yield from across_problems("KernelCrossAttention", self.projection, site)

    def source_dim(self, dim: int) -> int:
        return dim

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, self.head_dim)

    def build(self, site: Site) -> nn.Module:
        return KernelCrossAttentionLayer(self, site)


class KernelCrossAttentionLayer(AcrossLayer):
    def __init__(self, spec: KernelCrossAttention, site: Site) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.inside(site)
        self.projection = spec.projection.build(inner)
        self.features = spec.features.build(inner)

    def encoded(self, source: Encoded, call: Call) -> Sums:
        k, v = self.projection.keys_values(source.hidden)
        return sum_over(self.features, self.features.directions(call), k, v, source.places.real)

    def heads(self, q: Tensor, met: Sums, call: Call) -> Tensor:
        return read(self.features, self.features.directions(call), q, met)

    def records(self) -> dict[str, tuple[Tensor, ...]]:
        return self.features.records()
