"""Attention whose queries, and whose keys and values, are each made by one of many experts."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from formers.attention.backends import attend
from formers.attention.layer import head_problems, heads_inside, pattern_problems
from formers.attention.pattern import Causal, Everything, Pattern
from formers.attention.project import join_heads, split_heads
from formers.attention.request import Request
from formers.call import Call, Layer, Out, add_losses, add_records
from formers.experts.switch import Switch, SwitchLayer
from formers.init import ResidualLinear
from formers.linear import Linear
from formers.memory import KeepAllRule, Recalled
from formers.position.core import NoPosition, Position
from formers.residual import dropout_problems
from formers.spec.core import Site


class SwitchAttention(Layer):
    """Attention in which one layer of experts makes the queries and another the keys, which are the values too: Fedus et
    al. 2021, arXiv:2101.03961, appendix A. The output has a plain matrix.

    switch: what both layers of experts are. An expert is one matrix, `Linear()`, or a feed-forward. The paper has seen it
    learn faster than plain attention, and come apart where training was in bf16.

    heads: each dim / heads wide. pattern: what may be seen, None: Causal() in a decoder, Everything() in an encoder.
    dropout: rate at which attention weights are dropped.

    Choices are those of the queries' experts and of the keys', (B, T, k) each; records and losses are added up.
    """

    heads: int
    switch: Switch = Switch(Linear(), experts=8)
    pattern: Pattern | None = None
    position: Position = NoPosition()
    dropout: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, None, site)
        yield from dropout_problems(self.dropout)
        yield from pattern_problems(self.pattern_at(site), self.inside(site))

    def pattern_at(self, site: Site) -> Pattern:
        """The pattern, or the plain one for this site."""
        return self.pattern or (Causal() if site.causal else Everything())

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, None)

    def build(self, site: Site) -> nn.Module:
        return SwitchAttentionLayer(self, site)


class SwitchAttentionLayer(nn.Module):
    """to_queries, to_keys: a SwitchLayer each; out_proj."""

    def __init__(self, spec: SwitchAttention, site: Site) -> None:
        super().__init__()
        inner = spec.inside(site)
        self.spec, self.pattern = spec, spec.pattern_at(site)
        self.head_dim, self.scale = inner.head_dim, inner.head_dim**-0.5
        self.to_queries, self.to_keys = (SwitchLayer(spec.switch, site.part(i)) for i in range(2))
        self.out_proj = ResidualLinear(site.dim, site.dim)
        self.position = spec.position.build(inner)
        self.memory = KeepAllRule(self.pattern)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        for_queries, for_keys = choices or (None, None)
        asked: Out = self.to_queries(x, call, None, for_queries)
        answered, recalled = self._recall(x, call, state, for_keys)
        q = self.position.turn(split_heads(asked.y, self.head_dim), call.at, call.memo)
        rate = self.spec.dropout if self.training else 0.0
        k, v, to = recalled.k, recalled.v, recalled.places
        heads = attend(Request(q, k, v, call.at, to, self.pattern, self.position, self.scale, rate, call.memo))
        return Out(
            self.out_proj(join_heads(heads)),
            recalled.state,
            add_losses(asked.losses, answered.losses),
            (asked.choices, answered.choices),
            add_records(asked.records, answered.records),
        )

    def _recall(self, x: Tensor, call: Call, state: Any, choices: Tensor | None) -> tuple[Out, Recalled]:
        """What the experts of keys say, and what queries meet."""
        answered: Out = self.to_keys(x, call, None, choices)
        v = split_heads(answered.y, self.head_dim)
        return answered, self.memory.join(self.position.turn(v, call.at, call.memo), v, call, state)

    def skip(self, x: Tensor, call: Call, state: Any = None) -> Any:
        """Keys alone."""
        return self._recall(x, call, state, None)[1].state
