"""The layer: local attention, attention to the nearest keys of a memory, and a gate between the two."""

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from formers.attention.backends import attend
from formers.attention.blind import blind_problems
from formers.attention.layer import head_problems, heads_inside
from formers.attention.memorizing.reach import DOCUMENT, pieces_of
from formers.attention.memorizing.search import ExactSearch, Search, nearest
from formers.attention.memorizing.store import Store, grown, kept
from formers.attention.pattern import Blocks, Causal, Pattern
from formers.attention.project import Dense, ProjectionLayer
from formers.attention.request import Request
from formers.call import Call, Layer, Out
from formers.memory import KeepAll, Recalled
from formers.places import Places
from formers.position.core import NoPosition, Position
from formers.residual import dropout_problems
from formers.spec.core import Site


class MemorizingAttention(Layer):
    """Local attention, and attention to the nearest of many past keys. Wu et al. 2022, arXiv:2203.08913.

    A row keeps keys and values of its last `memory` tokens for each head. A query takes the `top_k` keys with the highest
    cosine, by one softmax over them v_m, by another over what `pattern` shows v_c; a head puts out
    g v_m + (1 - g) v_c with g = sigmoid(b_h), learned. Scores of the memory are s_h cos(q, k), with s_h learned: so keys
    that were made by older weights stay comparable. `position` acts on local attention alone.

    segment: tokens that are remembered together. A query of segment s = position // segment may retrieve what stands
    before s * segment, at most `memory` tokens further back. So nothing depends on how a text is cut into calls. Where
    there is nothing yet, v_c is put out. Where tokens carry the mark "document", a query retrieves from its own alone.
    pattern: of local attention; None: one's own segment and the one before, which is Transformer-XL's cache. Of documents
    it knows nothing unless it says Same("document").
    unit: local attention is by cosines too, with the same s_h; False: by plain products over √head_dim.
    search: ExactSearch() or ApproximateSearch(). gate: where b_h begins. head_dim, dropout: as of attention.

    What is stored has no gradient, within one call either; the gate, s_h and queries have one.

    Differs from the paper: s_h begins at √head_dim, where scores spread as those of plain attention; the paper's code
    begins at 1.
    """

    heads: int
    segment: int = 512
    memory: int = 65_536
    top_k: int = 32
    pattern: Pattern | None = None
    position: Position = NoPosition()
    projection: Dense = Dense()
    head_dim: int | None = None
    search: Search = ExactSearch()
    unit: bool = True
    gate: float = 0.0
    dropout: float = 0.0

    carries: ClassVar[bool] = True

    @property
    def marks(self) -> tuple[str, ...]:
        return (DOCUMENT,)

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, self.head_dim, site)
        yield from dropout_problems(self.dropout)
        if self.segment < 1:
            yield f"a segment of {self.segment} tokens holds nothing", "segment=512"
        if self.top_k < 1:
            yield f"of a memory, top_k={self.top_k} keys are no use", "top_k=32"
        elif self.memory < self.top_k:
            what = f"a memory of {self.memory} tokens does not hold top_k={self.top_k} keys"
            yield what, f"memory={self.top_k}" if self.memory < 1 else f"top_k={self.memory}"
        if not site.causal:
            what = "a memory is of what was read before, and an encoder reads everything at once"
            yield what, f"Attention(heads={self.heads})"
        elif not (local := self.pattern_at(site)).causal:
            yield f"a decoder must not see the future, but {local!r} is not causal", f"pattern=Causal() & ({local!r})"
        elif self.heads > 0 and self.segment > 0:
            yield from blind_problems(local, self.inside(site))

    def pattern_at(self, site: Site) -> Pattern:
        """What local attention sees."""
        return self.pattern or Causal() & Blocks(self.segment, before=1)

    def remembering(self, memory: int) -> "MemorizingAttention":
        """The same with a memory of so many tokens; parameters do not depend on it."""
        return self.replace(memory=memory)

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, self.head_dim)

    def build(self, site: Site) -> nn.Module:
        return MemorizingAttentionLayer(self, self.inside(site))


class Memorized(NamedTuple):
    """The state: of local attention, and the memory."""

    local: tuple[object, ...] | None = None
    store: Store | None = None


class MemorizingAttentionLayer(nn.Module):
    def __init__(self, spec: MemorizingAttention, site: Site) -> None:
        super().__init__()
        self.spec, self.pattern = spec, spec.pattern_at(site)
        self.projection = spec.projection.build(site)
        self.position = spec.position.build(site)
        self.recent = KeepAll().build(site, self.pattern)
        self.scale = nn.Parameter(torch.full((site.heads,), site.head_dim**0.5))
        self.gate = nn.Parameter(torch.full((site.heads,), float(spec.gate)))
        self.plain_scale: float = site.head_dim**-0.5

    def forward(self, x: Tensor, call: Call, state: Memorized | None = None, choices: Tensor | None = None) -> Out:
        made, recalled, store, after = self._remember(x, call, state)
        heads = self._local(made, recalled, call)
        if choices is None:
            choices = self._nearest(made, store, call)
        if choices is not None:
            heads = self._gated(heads, made.unit_q, store, choices)
        return Out(self.projection.output(heads), after, {}, choices)

    def skip(self, x: Tensor, call: Call, state: Memorized | None = None) -> Memorized | None:
        """What is remembered of tokens, without a search."""
        return self._remember(x, call, state)[3]

    def _remember(
        self, x: Tensor, call: Call, state: Memorized | None
    ) -> tuple["Made", Recalled, Store, Memorized | None]:
        """What this call made, what local attention meets, the memory with these tokens in it, and the next state."""
        past = state or Memorized()
        made = Made(self, x, call)
        recalled = self.recent(x, call, past.local, made)
        store = grown(past.store, made.unit_k.detach(), made.v.detach(), call)
        if not call.remember:
            return made, recalled, store, None
        return made, recalled, store, Memorized(recalled.state, kept(store, call, self.spec.segment, self.spec.memory))

    def _local(self, made: "Made", recalled: Recalled, call: Call) -> Tensor:
        """(B, H, T, D)."""
        if self.spec.unit:
            q, scale = made.unit_q * self.scale[:, None, None], 1.0
        else:
            q, scale = made.q, self.plain_scale
        q = self.position.turn(q, call.at, call.memo)
        rate = self.spec.dropout if self.training else 0.0
        to = recalled.places
        return attend(
            Request(q, recalled.k, recalled.v, call.at, to, self.pattern, self.position, scale, rate, call.memo)
        )

    def _nearest(self, made: "Made", store: Store, call: Call) -> Tensor | None:
        """The slots (B, H, T, top_k) that each query retrieves, -1 for none; None: no query retrieves anything."""
        segment, memory = self.spec.segment, self.spec.memory
        key = ("memorizing", segment, memory, call.at, store.places)
        pieces = call.memo.once(key, lambda: pieces_of(call.at, store.places, segment, memory))
        if not pieces:
            return None
        q, k = made.unit_q.detach(), store.keys.view
        found = torch.full((*q.shape[:3], self.spec.top_k), -1, dtype=torch.int64, device=q.device)
        for queries, slots, reach in pieces:
            top = nearest(q[:, :, queries], k[:, :, slots], self.spec.top_k, reach, self.spec.search)
            found[:, :, queries] = torch.where(top < 0, top, top + slots.start)
        return found

    def _gated(self, local: Tensor, q: Tensor, store: Store, slots: Tensor) -> Tensor:
        """Local attention (B, H, T, D) joined by that to the keys and values in these slots (B, H, T, top_k)."""
        found = slots >= 0
        keys, values = (taken(log.view, slots.clamp(min=0)) for log in (store.keys, store.values))
        scores = torch.einsum("bhtd,bhtkd->bhtk", q * self.scale[:, None, None], keys)
        weights = scores.masked_fill(~found, torch.finfo(scores.dtype).min).softmax(-1)
        if self.training and self.spec.dropout:
            weights = F.dropout(weights, self.spec.dropout)
        recalled = torch.einsum("bhtk,bhtkd->bhtd", weights, values)
        gate = self.gate.sigmoid()[:, None, None] * found.any(-1, keepdim=True)
        return gate * recalled + (1 - gate) * local


class Made:
    """Queries, keys and values of a call's tokens, (B, H, T, D): as they are and of length 1. As it is called, what local
    attention keeps of them."""

    def __init__(self, layer: MemorizingAttentionLayer, x: Tensor, call: Call) -> None:
        self._layer, self._call = layer, call
        self.q, self.k, self.v = layer.projection.together(x)
        self.unit_q, self.unit_k = F.normalize(self.q, dim=-1), F.normalize(self.k, dim=-1)

    @property
    def projection(self) -> ProjectionLayer:
        return self._layer.projection

    def __call__(self, inputs: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        k = self.unit_k if self._layer.spec.unit else self.k
        return self._layer.position.turn(k, places, self._call.memo), self.v


def taken(kept: Tensor, slots: Tensor) -> Tensor:
    """Of (B, H, S, D), what lies in the slots (B, H, T, k): (B, H, T, k, D)."""
    rows = torch.arange(kept.shape[0], device=kept.device)[:, None, None, None]
    heads = torch.arange(kept.shape[1], device=kept.device)[:, None, None]
    return kept[rows, heads, slots]
