"""Attention to an encoder's output."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from formers.attention.backends import attend
from formers.attention.layer import LookedBack, finished, head_problems, heads_inside
from formers.attention.pattern import Everything
from formers.attention.project import Dense, Projection
from formers.attention.request import Request
from formers.call import Call, Layer, Out
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
        if not site.encoder:
            yield (
                "there is no encoder to attend to",
                "put this decoder into an EncoderDecoder, or drop the CrossAttention",
            )
        if not self.projection.across:
            what = f"{self.projection!r} makes keys of the tokens that queries are made of, not of an encoder's output"
            yield what, "projection=SparseQueries()"

    def source_dim(self, dim: int) -> int:
        return dim

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, self.kv_heads, self.head_dim)

    def build(self, site: Site) -> nn.Module:
        return CrossAttentionLayer(self, site)


class CrossAttentionLayer(nn.Module):
    def __init__(self, spec: CrossAttention, site: Site) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.inside(site)
        self.scale = inner.head_dim**-0.5
        self.projection = spec.projection.build(inner)
        self.position = NoPosition().build(inner)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        x, met, kept = self._recall(x, call, state)
        request = Request(
            self.projection.queries(x),
            met.k.view,
            met.v.view,
            call.at,
            met.places,
            Everything(),
            self.position,
            self.scale,
            self.spec.dropout if self.training else 0.0,
            call.memo,
        )
        y, kept = finished(self.projection, attend(request), call, state, kept)
        return Out(y, kept if call.remember else None)

    def skip(self, x: Tensor, call: Call, state: Any = None) -> Any:
        """The encoder's keys and values, which owe nothing to x, and what the projection remembers of it."""
        return self(x, call, state).state if self.projection.output_looks_back else self._recall(x, call, state)[2]

    def _recall(self, x: Tensor, call: Call, state: Any) -> tuple[Tensor, KeysValues, Any]:
        """What queries are made of, the encoder's keys and values, and what remains of x even if nobody attends."""
        if not self.projection.looks_back:
            met = self._encoded(call) if state is None else state
            return x, met, met
        tail, met, _ = state or LookedBack()
        met = self._encoded(call) if met is None else met
        x, tail = self.projection.prepare(x, call.at, tail)
        return x, met, LookedBack(tail, met)

    def _encoded(self, call: Call) -> KeysValues:
        if call.encoded is None:
            raise ValueError("cross-attention was given neither an encoder's output nor the state of an earlier call")
        k, v = self.projection.keys_values(call.encoded.hidden)
        return KeysValues(Log(k), Log(v), call.encoded.places)
