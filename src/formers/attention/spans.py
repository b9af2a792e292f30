"""Spans: how far back each head looks, learned by gradient through a mask that falls off softly."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from formers.places import Spots
from formers.position.core import PositionLayer
from formers.products import Matrix
from formers.spec.core import Site, Spec


class Spans(Spec):
    """How long the spans of an attention are, as shares of the longest one. Built at a site with heads."""

    def build(self, site: Site) -> "SpansLayer":
        raise NotImplementedError


class SpansLayer(nn.Module):
    """settled: spans change with the parameters alone, so that what is beyond them now is not seen later on either."""

    settled = False

    def forward(self, x: Tensor) -> Tensor:
        """Shares in [0, 1] for tokens x (B, T, M): (B, H, T), or (1, H, 1) where they are settled."""
        raise NotImplementedError


class HeadSpans(Spans):
    """A span for each head: adaptive attention span, Sukhbaatar et al. 2019, arXiv:1905.07799.

    begin: the share of the longest span that every head begins with. A span grows only while something of use stands in
    its ramp, so begin at 0 with a ramp that reaches what the task needs, or at 1.
    """

    begin: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not 0 <= self.begin <= 1:
            yield f"spans begin as a share of the longest one, from 0 to 1, not {self.begin}", "begin=0.0"

    def build(self, site: Site) -> SpansLayer:
        return HeadSpansLayer(self, site)


class HeadSpansLayer(SpansLayer):
    """A Learner: after each update the shares are brought back into [0, 1], as in the paper's code.

    They are read clamped as well, so that a training loop which teaches no learners has no spans out of bounds; but a
    share that it leaves outside gets no gradient any more.
    """

    settled = True

    def __init__(self, spec: HeadSpans, site: Site) -> None:
        super().__init__()
        self.shares = nn.Parameter(torch.full((site.heads,), spec.begin))
        self.lesson = record_of(site)

    def forward(self, x: Tensor) -> Tensor:
        return self.shares.clamp(0, 1)[None, :, None]

    @torch.no_grad()
    def learn(self, seen: Tensor) -> None:
        """Bring the shares back; what was seen does not matter, only that there was an update."""
        self.shares.clamp_(0, 1)


class QuerySpans(Spans):
    """A span for each head and query, S sigmoid(v x_t + b): the dynamic span of arXiv:1905.07799, section 2.3.

    begin: the share that spans have at v = 0; b is told from there, so that it begins as 0.
    """

    begin: float = 0.1

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if not 0 < self.begin < 1:
            yield f"a sigmoid lies between 0 and 1, so spans cannot begin at {self.begin}", "begin=0.1"

    def build(self, site: Site) -> SpansLayer:
        return QuerySpansLayer(self, site)


class QuerySpansLayer(SpansLayer):
    def __init__(self, spec: QuerySpans, site: Site) -> None:
        super().__init__()
        self.begin = math.log(spec.begin / (1 - spec.begin))
        self.linear = Matrix(site.dim, site.heads)

    def forward(self, x: Tensor) -> Tensor:
        shares: Tensor = (self.linear(x) + self.begin).sigmoid()
        return shares.transpose(1, 2)


class SoftSpan(PositionLayer):
    """Scores by another position, masked softly: a key x places away weighs m = clip((z + R - x) / R, 0, 1).

    Weighing e^s by m is adding log m to the score s, and a pair with m = 0 is not seen. Gradients are those of the formula,
    since log m is only taken of m > 0. It is made for one call: reach (1, H, 1) is the z + R of each head; or else None, and
    queries bring it as the last of their numbers, wherever tiles take them.
    """

    by_content = True

    def __init__(self, position: PositionLayer, ramp: int, scale: float, reach: Tensor | None) -> None:
        super().__init__()
        self.position, self.ramp, self.scale, self.reach = position, ramp, scale, reach

    def scores(self, q: Tensor, k: Tensor, q_at: Spots, k_at: Spots, head: Tensor) -> Tensor:
        if self.reach is None:
            q, reach = q[..., :-1].to(k.dtype), q[..., -1:]
        else:
            reach = self.reach[..., None, None]
        distance = q_at.pos - k_at.pos
        # An empty slot of a tile is told as the first place: for its sake no table of distances need be read so far.
        furthest = reach.detach().max().ceil().long()
        near = Spots(q_at.pos - distance.clamp(-furthest, furthest), k_at.marks)
        scores = self.position.scores(q, k, q_at, near, head)
        left = reach - distance.abs()
        seen = left > 0
        weight = torch.where(seen, left / self.ramp, 1).clamp(max=1)
        # Scores are multiplied by the scale later on, and the mask is not to be.
        return (scores + (weight.log() / self.scale).to(scores.dtype)).masked_fill(~seen, float("-inf"))


def with_reach(q: Tensor, reach: Tensor) -> Tensor:
    """Queries (B, H, T, D), each with how far it reaches, (B, H, T), behind it."""
    return torch.cat([q, reach[..., None]], -1)


def record_of(site: Site) -> str:
    """The name of the record that an attention with spans leaves."""
    return "spans " + ".".join(map(str, site.path))
