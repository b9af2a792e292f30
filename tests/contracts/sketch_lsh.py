"""LSH attention as a Selector: shared queries and keys, several rounds, buckets as choices. Reformer, arXiv:2001.04451."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers import Attention
from formers.attention import Projection, Selector
from formers.attention.plan import Plan, Tiles
from formers.attention.project import ProjectionLayer
from formers.attention.select import SelectorRule
from formers.call import Call
from formers.places import Places, Spots
from formers.position import Position, PositionLayer
from formers.spec import Site


class SketchSharedQK(Projection):
    """Keys are the queries at unit length, so that a query meets what is hashed like itself."""

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        if site.kv_heads != site.heads:
            yield (
                f"each of {site.heads} queries is its own key, but there are {site.kv_heads} key heads",
                "kv_heads=None",
            )

    def build(self, site: Site) -> ProjectionLayer:
        return SketchSharedQKLayer(site)


class SketchSharedQKLayer(ProjectionLayer):
    def __init__(self, site: Site) -> None:
        super().__init__()
        self.heads = site.heads
        self.qk, self.v = (nn.Linear(site.dim, site.heads * site.head_dim, bias=False) for _ in range(2))
        self.out = nn.Linear(site.heads * site.head_dim, site.dim, bias=False)

    def queries(self, x: Tensor) -> Tensor:
        return self.qk(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.normalize(self.queries(x), dim=-1), self.v(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def output(self, heads: Tensor) -> Tensor:
        return self.out(heads.transpose(1, 2).flatten(2))


class SketchSelfLast(Position):
    """A token attends to itself only where nothing else may be seen."""

    def build(self, site: Site) -> PositionLayer:
        return SketchSelfLastLayer()


class SketchSelfLastLayer(PositionLayer):
    biased = True

    def bias(self, q: Spots, k: Spots, head: Tensor) -> Tensor:
        return -1e5 * (q.pos == k.pos).to(torch.get_default_dtype())


class SketchLSH(Selector):
    """Sort by bucket, cut into chunks; a chunk meets itself and the one before. strict: only within one bucket."""

    chunk: int
    buckets: int
    rounds: int = 2
    strict: bool = False

    def build(self, site: Site) -> SelectorRule:
        return SketchLSHRule(self, site)


class SketchLSHRule(SelectorRule):
    def __init__(self, spec: SketchLSH, site: Site) -> None:
        super().__init__()
        self.spec, self.site = spec, site

    def rotations(self, call: Call) -> Tensor:
        spec, site = self.spec, self.site
        shape = site.heads, spec.rounds, site.head_dim, spec.buckets // 2
        return torch.randn(shape, generator=call.chance(site.path))

    @torch.no_grad()
    def choose(self, q: Tensor, k: Tensor, call: Call, to: Places) -> Tensor:
        """Buckets (B, H, rounds, S) of the keys; hashing knows no scale, so they are those of the queries too."""
        turned = torch.einsum("bhsd,hrdn->bhrsn", k, self.rotations(call).to(k))
        return torch.cat([turned, -turned], -1).argmax(-1)

    def plan(self, choices: Tensor, at: Places, to: Places) -> Plan:
        chunk, length, older = self.spec.chunk, to.length, to.length - at.length  # the queries are the last slots
        if to.real is not None:  # padding has a bucket of its own
            choices = choices.masked_fill(~to.real[:, None, None], self.spec.buckets)
        order = (choices * length + torch.arange(length)).argsort(-1)
        row = order.argsort(-1) // chunk  # (B, H, rounds, S): the chunk of each slot

        def chunks(of: Tensor, nothing: int) -> tuple[Tensor, Tensor]:
            own = F.pad(of, (0, -length % chunk), value=nothing).unflatten(-1, (-1, chunk))
            before = F.pad(own[..., :-1, :], (0, 0, 1, 0), value=nothing)
            return own.flatten(2, 3), torch.cat([before, own], -1).flatten(2, 3)

        rows, columns = chunks(order, -1)
        meet = None
        if self.spec.strict:
            q_bucket, k_bucket = chunks(choices.gather(-1, order), -1)
            meet = q_bucket[..., :, None] == k_bucket[..., None, :]

        def times(q: Tensor, k: Tensor) -> Tensor:
            """In how many rounds query q meets key k."""

            def pick(of: Tensor, index: Tensor) -> Tensor:
                flat = index.flatten(2)[:, :, None].expand(-1, -1, self.spec.rounds, -1)
                return of.gather(-1, flat).unflatten(-1, index.shape[2:])

            back = pick(row, q + older) - pick(row, k)
            together = (back == 0) | (back == 1)
            if self.spec.strict:
                together = together & (pick(choices, q + older) == pick(choices, k))
            return together.sum(2)

        return Plan((Tiles((rows - older).clamp(min=-1), columns, meet),), multiplicity=times)


def attention(select: Selector | None, dropout: float = 0.0) -> Attention:
    return Attention(
        2, projection=SketchSharedQK(), position=SketchSelfLast(), select=select, scale=1.0, dropout=dropout
    )
