"""Attention of a global and a long input, as a sublayer. ETC, Ainslie et al. 2020, arXiv:2004.08483."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from formers.attention.backends import attend
from formers.attention.layer import head_problems, heads_inside
from formers.attention.pattern import Pattern
from formers.attention.patterns.global_local import GlobalLocal
from formers.attention.plan import BLOCK, Plan, block_plan
from formers.attention.project import Dense, ProjectionLayer, join_heads, split_heads
from formers.attention.request import Request
from formers.call import Call, Layer, Out
from formers.init import ResidualLinear
from formers.places import Places
from formers.position.core import Position
from formers.position.labels import RelativeLabels
from formers.residual import dropout_problems
from formers.sides import GLOBAL, SEGMENT, GlobalRows, global_rows, require_sides
from formers.spec.core import Site


class GlobalLocalAttention(Layer):
    """Long and global tokens in one sequence, each with an output projection of their input's own.

    A query has one softmax over all that it sees: [l2l, l2g] of a long token, [g2g, g2l] of a global one. Which token is
    which is told by marks, see `formers.sides`; without marks all are long.
    heads: query heads. pattern: of the four pieces. position: how order and segments enter the scores.
    separate: queries, keys and values of global queries have projections of their own, too; else all pieces share them,
    as the paper's models do. dropout: rate at which attention weights are dropped.

    Raises ValueError for one mark without the other, and for a segment without a global token.
    """

    heads: int
    pattern: GlobalLocal = GlobalLocal(84)
    position: Position = RelativeLabels()
    separate: bool = False
    dropout: float = 0.0

    @property
    def marks(self) -> tuple[str, ...]:
        return GLOBAL, SEGMENT

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, None, site)
        yield from dropout_problems(self.dropout)
        if site.causal:
            what = (
                "global tokens see all of the long input, and long ones both sides of theirs, so no decoder can use it"
            )
            yield what, f"Attention({self.heads}, pattern=Causal() & Window({self.pattern.radius + 1}))"

    def pattern_at(self, site: Site) -> Pattern:
        """The pattern, at any site."""
        return self.pattern

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, None)

    def build(self, site: Site) -> nn.Module:
        return GlobalLocalAttentionLayer(self, self.inside(site))


class GlobalLocalAttentionLayer(nn.Module):
    def __init__(self, spec: GlobalLocalAttention, site: Site) -> None:
        super().__init__()
        self.spec, self.scale = spec, site.head_dim**-0.5
        self.projection = Dense().build(site)
        self.of_global: ProjectionLayer | OutputLayer = Dense().build(site) if spec.separate else OutputLayer(site)
        self.position = spec.position.build(site)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        at = call.at
        call.memo.once(("sides", at), lambda: require_sides(at))
        rows = call.memo.once(("global rows", at), lambda: global_rows(at))
        q, k, v = self.projection.together(x)
        heads = self._attend(q, k, v, at, call)
        y = self.projection.output(heads)
        return Out(y if rows is None else rows.put(y, self._global_output(x, heads, rows, call)))

    def _global_output(self, x: Tensor, heads: Tensor, rows: GlobalRows, call: Call) -> Tensor:
        """x (B, T, M) and the heads (B, H, T, D) of all tokens -> what global tokens get, (B, G, M)."""
        if isinstance(self.of_global, ProjectionLayer):
            places = call.memo.once(("global places", call.at), lambda: rows.places(call.at))
            q, (k, v) = self.of_global.queries(rows.take(x)), self.of_global.keys_values(x)
            return self.of_global.output(self._attend(q, k, v, places, call))
        return self.of_global.output(split_heads(rows.take(join_heads(heads)), heads.shape[-1]))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, at: Places, call: Call) -> Tensor:
        """Queries at some places to the keys of all."""
        q, k = self.position.turn(q, at, call.memo), self.position.turn(k, call.at, call.memo)
        pattern, rate = self.spec.pattern, self.spec.dropout if self.training else 0.0
        plan = call.memo.once(("fine blocks", pattern, at, call.at), lambda: fine_blocks(pattern, at, call.at))
        return attend(Request(q, k, v, at, call.at, pattern, self.position, self.scale, rate, call.memo, plan))


def fine_blocks(pattern: GlobalLocal, at: Places, to: Places) -> Plan | None:
    """Blocks no larger than a small radius calls for, where they save half of the pairs at least; None: they do not."""
    size = next((size for size in (16, 32) if size > pattern.radius), BLOCK)
    if at.length <= 4 * size:
        return None
    plan = block_plan(pattern, at, to, size)
    return plan if 2 * plan.pairs < at.length * to.length else None


class OutputLayer(nn.Module):
    """The output projection alone."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.out_proj = ResidualLinear(site.heads * site.head_dim, site.dim)

    def output(self, heads: Tensor) -> Tensor:
        """heads (B, H, T, D) -> (B, T, M)."""
        joined: Tensor = self.out_proj(join_heads(heads))
        return joined
