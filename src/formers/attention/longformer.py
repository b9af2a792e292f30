"""A window, and tokens that see and are seen by all, by projections of their own. Longformer, arXiv:2004.05150."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from formers.attention.backends import attend
from formers.attention.blind import blind_problems
from formers.attention.folded import attend_inputs, folding_pays
from formers.attention.layer import head_problems, heads_inside
from formers.attention.pattern import Causal, Everything, Pattern, Window
from formers.attention.patterns.seen_by_all import SeenByAll, SeesAll
from formers.attention.project import Dense, split_heads
from formers.attention.request import Request
from formers.call import Call, Layer, Out
from formers.places import Places
from formers.position.core import NoPosition, Position
from formers.products import Matrix
from formers.residual import dropout_problems
from formers.sides import GlobalRows, rows_where
from formers.spec.core import Site


class LongformerAttention(Layer):
    """Sliding windows, and global tokens that are chosen for each input. Beltagy et al. 2020, arXiv:2004.05150.

    Global tokens are those with a mark above 0: `model(tokens, marks={"global": ...})`, (B, T), any number in each row;
    in a call without the mark no token is global. Every token sees what `pattern` shows and all global tokens, in one
    softmax; a global token sees all tokens, by queries, keys and values of its own (`q_global`, `k_global`, `v_global`).

    pattern: such as Window(257), which is the published window of 512, or ByHead and Dilated for heads that differ.
    head_dim: width of a head, None: dim / heads. dropout: rate at which attention weights are dropped. mark: its name.
    """

    heads: int
    pattern: Pattern = Window(257)
    head_dim: int | None = None
    position: Position = NoPosition()
    projection: Dense = Dense()
    dropout: float = 0.0
    mark: str = "global"

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, self.head_dim, site)
        yield from dropout_problems(self.dropout)
        if site.causal:
            causal = self.pattern if self.pattern.causal else Causal() & self.pattern
            what = "a decoder must not see the future, and a global token sees all of it"
            yield what, f"Attention(heads={self.heads}, pattern={causal!r})"
        elif self.heads > 0:
            yield from blind_problems(self.pattern, self.inside(site))

    def pattern_at(self, site: Site) -> Pattern:
        """All that is seen: the last of the three by projections of its own."""
        return self.pattern | SeenByAll(self.mark) | SeesAll(self.mark)

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, self.head_dim)

    def build(self, site: Site) -> nn.Module:
        return LongformerAttentionLayer(self, self.inside(site))


class LongformerAttentionLayer(nn.Module):
    def __init__(self, spec: LongformerAttention, site: Site) -> None:
        super().__init__()
        self.spec, self.head_dim, self.scale = spec, site.head_dim, site.head_dim**-0.5
        self.local, self.pattern = spec.pattern, spec.pattern | SeenByAll(spec.mark)
        self.projection = spec.projection.build(site)
        self.position = spec.position.build(site)
        width, bias = site.heads * site.head_dim, spec.projection.bias
        self.q_global, self.k_global, self.v_global = (Matrix(site.dim, width, bias) for _ in range(3))

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        seers = call.memo.once(("seers", self.spec.mark, call.at), lambda: seers_of(call.at, self.spec.mark))
        if seers is None:
            return Out(self._shown(x, call, self.local))
        # First, so that its gradient by x is made last, and need not wait for the other.
        seen = self._seen(x, call, seers)
        return Out(seers.put(self._shown(x, call, self.pattern), seen))

    def _shown(self, x: Tensor, call: Call, pattern: Pattern) -> Tensor:
        """What all tokens make of what a pattern shows, (B, T, M)."""
        q, k, v = self.projection.together(x)
        q, k = (self.position.turn(t, call.at, call.memo) for t in (q, k))
        made: Tensor = self.projection.output(self._attend(q, k, v, call, call.at, pattern))
        return made

    def _seen(self, x: Tensor, call: Call, seers: GlobalRows) -> Tensor:
        """What the global tokens make of all, (B, G, M)."""
        q = split_heads(self.q_global(seers.take(x)), self.head_dim)
        if isinstance(self.spec.position, NoPosition) and folding_pays(q.shape[2], self.head_dim):
            heads = attend_inputs(q, x, call.at, self.k_global, self.v_global, self.scale, self._rate)
            return self.projection.output(heads)
        k, v = (split_heads(t, self.head_dim) for t in (self.k_global(x), self.v_global(x)))
        at = seers.places(call.at)
        q = self.position.turn(q, at, call.memo)
        heads = self._attend(q, self.position.turn(k, call.at, call.memo), v, call, at, Everything())
        return self.projection.output(heads)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, call: Call, at: Places, pattern: Pattern) -> Tensor:
        return attend(Request(q, k, v, at, call.at, pattern, self.position, self.scale, self._rate, call.memo))

    @property
    def _rate(self) -> float:
        return self.spec.dropout if self.training else 0.0


def seers_of(at: Places, mark: str) -> GlobalRows | None:
    """The real tokens that carry a mark above 0; None where no row has one, or the call does not give it."""
    if mark not in at.marks:
        return None
    marked = at.marks[mark] > 0
    return rows_where(marked if at.real is None else marked & at.real)
