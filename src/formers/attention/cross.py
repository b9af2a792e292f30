"""Attention to an encoder's output."""

from collections.abc import Iterator

from torch import Tensor, nn

from formers.attention.across import AcrossLayer, across_problems
from formers.attention.backends import attend
from formers.attention.layer import head_problems, heads_inside
from formers.attention.pattern import Everything
from formers.attention.project import Dense, Projection
from formers.attention.request import Request
from formers.call import Call, Encoded, Layer
from formers.memory import KeysValues
from formers.position.core import NoPosition
from formers.residual import dropout_problems
from formers.spec.core import Site
from formers.state import Log


class CrossAttention(Layer):
    """Queries from the decoder, keys and values from the encoder's output; they are made once and kept."""

    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    projection: Projection = Dense()
    dropout: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, self.kv_heads, self.head_dim, site)
        yield from dropout_problems(self.dropout)
        yield from across_problems("CrossAttention", self.projection, site)

    def source_dim(self, dim: int) -> int:
        return dim

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, self.kv_heads, self.head_dim)

    def build(self, site: Site) -> nn.Module:
        return CrossAttentionLayer(self, site)


class CrossAttentionLayer(AcrossLayer):
    def __init__(self, spec: CrossAttention, site: Site) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.inside(site)
        self.scale = inner.head_dim**-0.5
        self.projection = spec.projection.build(inner)
        self.position = NoPosition().build(inner)

    def encoded(self, source: Encoded, call: Call) -> KeysValues:
        k, v = self.projection.keys_values(source.hidden)
        return KeysValues(Log(k), Log(v), source.places)

    def heads(self, q: Tensor, met: KeysValues, call: Call) -> Tensor:
        rate, to = self.spec.dropout if self.training else 0.0, met.places
        k, v, seen = met.k.view, met.v.view, Everything()
        return attend(Request(q, k, v, call.at, to, seen, self.position, self.scale, rate, call.memo))
