"""Attention by features to an encoder's output, which is summed over once."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from formers.attention.kernel.features import FeatureMap
from formers.attention.kernel.fourier import RandomFourier
from formers.attention.kernel.sums import Sums, read, sum_over
from formers.attention.layer import LookedBack, finished, head_problems, heads_inside
from formers.attention.project import Dense, Projection
from formers.call import Call, Layer, Out
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
        if not site.encoder:
            what = "there is no encoder to attend to"
            yield what, "put this decoder into an EncoderDecoder, or drop the KernelCrossAttention"
        if not self.projection.across:
            what = f"{self.projection!r} makes keys of the tokens that queries are made of, not of an encoder's output"
            yield what, "projection=SparseQueries()"

    def source_dim(self, dim: int) -> int:
        return dim

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, self.head_dim)

    def build(self, site: Site) -> nn.Module:
        return KernelCrossAttentionLayer(self, site)


class KernelCrossAttentionLayer(nn.Module):
    def __init__(self, spec: KernelCrossAttention, site: Site) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.inside(site)
        self.projection = spec.projection.build(inner)
        self.features = spec.features.build(inner)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        directions = self.features.directions(call)
        x, sums, kept = self._recall(x, call, state, directions)
        heads = read(self.features, directions, self.projection.queries(x), sums)
        y, kept = finished(self.projection, heads, call, state, kept)
        return Out(y, kept if call.remember else None, records=self.features.records())

    def skip(self, x: Tensor, call: Call, state: Any = None) -> Any:
        """The sums, which owe nothing to x, and what the projection remembers of it."""
        if self.projection.output_looks_back:
            return self(x, call, state).state
        return self._recall(x, call, state, self.features.directions(call))[2]

    def _recall(self, x: Tensor, call: Call, state: Any, directions: Tensor) -> tuple[Tensor, Sums, Any]:
        """What queries are made of, the sums over the encoder's output, and what remains of x even if nobody reads."""
        if not self.projection.looks_back:
            sums = self._encoded(call, directions) if state is None else state
            return x, sums, sums
        tail, sums, _ = state or LookedBack()
        sums = self._encoded(call, directions) if sums is None else sums
        x, tail = self.projection.prepare(x, call.at, tail)
        return x, sums, LookedBack(tail, sums)

    def _encoded(self, call: Call, directions: Tensor) -> Sums:
        if call.encoded is None:
            raise ValueError("cross-attention was given neither an encoder's output nor the state of an earlier call")
        k, v = self.projection.keys_values(call.encoded.hidden)
        return sum_over(self.features, directions, k, v, call.encoded.places.real)
