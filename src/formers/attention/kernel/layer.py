"""Attention by features as a sublayer: linear in the length, and a state that does not grow."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from formers.attention.kernel.features import FeatureMap, Positive
from formers.attention.kernel.sums import Sums, attend_causally
from formers.attention.kernel.whole import read, sum_over
from formers.attention.layer import LookedBack, finished, head_problems, heads_inside
from formers.attention.pattern import Pattern
from formers.attention.project import Dense, Projection
from formers.call import Call, Layer, Out
from formers.position.core import NoPosition, Position
from formers.position.rotary import Rotary
from formers.products import Matrix
from formers.spec.core import Site


class KernelAttention(Layer):
    """Attention with weights phi(q) . phi(k): sums over keys stand in for scores. Katharopoulos et al. 2020,
    arXiv:2006.16236; Performer, Choromanski et al. 2020, arXiv:2009.14794; random feature attention, Peng et al. 2021,
    arXiv:2103.02143.

    In a decoder a query meets the keys up to its own, and the state is the sums so far: (F, D + 1) numbers a head for F
    features and a head width of D, after however many tokens. In an encoder it meets all of them.

    heads, head_dim, position, projection: as of attention; positions that turn queries and keys, or none. features: phi.
    gate: at each token the sums keep a share g of themselves and take 1 - g of its key and value, g = sigmoid(w . x + b)
    for each head (RFA-Gate). pattern: None; there is no other, see `problems`.
    """

    heads: int
    head_dim: int | None = None
    features: FeatureMap = Positive()
    gate: bool = False
    position: Position = NoPosition()
    projection: Projection = Dense()
    pattern: Pattern | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, self.head_dim, site)
        if self.pattern is not None:
            what = f"keys are met as one sum, from which {self.pattern!r} cannot leave out those that it does not show"
            yield what, f"Attention(heads={self.heads}, pattern={self.pattern!r})"
        if not isinstance(self.position, (NoPosition, Rotary)):
            what = f"{self.position!r} adds to scores, and sums over keys have none"
            yield what, "position=Rotary()"
        if self.gate and not site.causal:
            yield "a gate forgets what came earlier, and an encoder reads in no order", "gate=False"
        if not self.projection.within:
            what = f"{self.projection!r} makes keys of an encoder's output, and there is none here"
            yield what, "projection=Dense()"

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, self.head_dim)

    def build(self, site: Site) -> nn.Module:
        return KernelAttentionLayer(self, site)


class KernelAttentionLayer(nn.Module):
    def __init__(self, spec: KernelAttention, site: Site) -> None:
        super().__init__()
        self.spec, self.causal = spec, site.causal
        inner = spec.inside(site)
        self.projection = spec.projection.build(inner)
        self.position = spec.position.build(inner)
        self.features = spec.features.build(inner)
        self.gate = Matrix(site.dim, spec.heads) if spec.gate else None

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        past = state if self.projection.looks_back or state is None else LookedBack(None, state)
        tail, before, _ = past or LookedBack()
        gate = None if self.gate is None else self.gate(x).transpose(1, 2)
        if self.projection.looks_back:
            x, tail = self.projection.prepare(x, call.at, tail)
        q, k, v = self.projection.together(x)
        q, k = (self.position.turn(t, call.at, call.memo) for t in (q, k))
        directions = self.features.directions(call)
        if self.causal:
            before = before or Sums.of_nothing(self.spec.features.count, v)
            heads, sums = attend_causally(self.features, directions, (q, k, v), before, call.at.real, gate)
        else:
            sums = sum_over(self.features, directions, k, v, call.at.real)
            heads = read(self.features, directions, q, sums)
        kept = LookedBack(tail, sums) if self.projection.looks_back else sums
        y, kept = finished(self.projection, heads, call, past, kept)
        return Out(y, kept if call.remember and self.causal else None, records=self.features.records())
