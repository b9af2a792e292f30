"""Attention as a sublayer: project, place, remember, attend."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from formers.attention.backends import attend
from formers.attention.blind import blind_problems
from formers.attention.pattern import Causal, Everything, Pattern
from formers.attention.project import Dense, Projection, ProjectionLayer
from formers.attention.request import Request, for_each
from formers.attention.select import EVERY, Noted, Selector
from formers.attention.weights import attention_weights
from formers.call import Call, Layer, Out, add_losses
from formers.memory import KeepAll, Memory, Recalled
from formers.parts import Part, in_parts, parts_of
from formers.places import Memo, Places
from formers.position.core import NoPosition, Position, PositionLayer
from formers.position.rotary import Rotary
from formers.position.self_last import SelfLast
from formers.residual import dropout_problems
from formers.spec.core import Site


class Attention(Layer):
    """Softmax attention over the pairs that a pattern shows. Vaswani et al. 2017, arXiv:1706.03762.

    heads: query heads; kv_heads: key and value heads, each shared by heads / kv_heads query heads (Ainslie et al.
    2023, arXiv:2305.13245), None: as many as heads. head_dim: width of a head, None: dim / heads.
    pattern: what may be seen, None: Causal() in a decoder, Everything() in an encoder.
    select: pairs chosen by content, within the pattern. scale: of the scores, None: head_dim^-0.5.
    dropout: rate at which attention weights are dropped. heads_at_once: heads worked on at a time while training; the
    others are recomputed in the backward pass. None: all of them.
    """

    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    pattern: Pattern | None = None
    position: Position = NoPosition()
    projection: Projection = Dense()
    select: Selector | None = None
    memory: Memory = KeepAll()
    scale: float | None = None
    dropout: float = 0.0
    heads_at_once: int | None = None

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, self.kv_heads, self.head_dim, site)
        yield from dropout_problems(self.dropout)
        yield from pattern_problems(self.pattern_at(site), self.inside(site))
        if not self.projection.within:
            what = f"{self.projection!r} makes keys of an encoder's output, and there is none here"
            yield what, "projection=MultConv()"
        if self.select is not None:
            yield from self._select_problems(self.select, site)
        if self.heads_at_once is not None and self.heads > 0:
            yield from self._share_problems(self.heads_at_once, site)
        yield from self.memory.problems_with(self, site)

    def _select_problems(self, select: Selector, site: Site) -> Iterator[tuple[str, str]]:
        name = type(select).__name__
        if select.of_keys and not self.projection.shared:
            what = (
                f"{name} puts queries and keys in one order, so they must be the same, and {self.projection!r} has both"
            )
            yield what, "projection=SharedQK(), position=SelfLast(), scale=1.0"
        if site.streaming and not select.prefix_stable:
            what = f"{name} chooses from the whole sequence, so later tokens change what earlier ones meet"
            own = "" if select.stable_form is None else f"select={select.stable_form!r}, or "
            mend = f"{own}select=TopBlocks(block=64, count=4)"
            yield f"{what}, and decoding step by step cannot equal one pass", mend

    def _share_problems(self, at_once: int, site: Site) -> Iterator[tuple[str, str]]:
        group = max(1, self.heads // (self.kv_heads or self.heads))
        if at_once < 1 or self.heads % at_once or at_once % group:
            what = f"{self.heads} heads, {group} to each key head, do not split into groups of {at_once}"
            yield what, f"heads_at_once={group}"
        if not isinstance(self.position, (NoPosition, SelfLast, Rotary)) or not isinstance(self.memory, KeepAll):
            what = f"{self.position!r} and {self.memory!r} are not cut into groups of heads"
            yield what, "heads_at_once=None"
        if not self.projection.splits(self.inside(site)):
            yield f"{self.projection!r} is not cut into groups of heads", "heads_at_once=None"

    def pattern_at(self, site: Site) -> Pattern:
        """The pattern, or the plain one for this site, as far as the memory shows it."""
        return self.memory.shows(self.pattern or (Causal() if site.causal else Everything()))

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, self.kv_heads, self.head_dim)

    def build(self, site: Site) -> nn.Module:
        return AttentionLayer(self, site)


class AttentionLayer(nn.Module):
    def __init__(self, spec: Attention, site: Site) -> None:
        super().__init__()
        self.spec, self.pattern = spec, spec.pattern_at(site)
        inner = spec.inside(site)
        self.scale = inner.head_dim**-0.5 if spec.scale is None else spec.scale
        self.projection = spec.projection.build(inner)
        self.position = spec.position.build(inner)
        self.memory = spec.memory.build(inner, self.pattern)
        self.select = spec.select.build(inner) if spec.select else None

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        parts = parts_of(self, call, state, choices)
        if parts is not None:
            return in_parts(parts, x)
        memory, chosen = state if isinstance(state, Selected) else (state, None)
        project, recalled = self._recall(x, call, memory)
        q = self.position.turn(project.queries(), call.at, call.memo)
        choices, chosen = self._choose(q, recalled, call, chosen, choices)
        heads = self._attend(q, recalled.k, recalled.v, recalled.places, call, choices)
        y, kept = finished(self.projection, heads, call, memory, recalled.state)
        noted = self._note(q, recalled.k, choices, call)
        losses = add_losses(recalled.losses, noted.losses)
        return Out(y, kept if chosen is None else Selected(kept, chosen), losses, choices, noted.records)

    def parts(self, call: Call, choices: Any) -> list[Part] | None:
        """Some heads at a time, where nothing has to be remembered."""
        at_once, heads = self.spec.heads_at_once, self.spec.heads
        if at_once is None or call.remember:
            return None
        groups = [slice(start, start + at_once) for start in range(0, heads, at_once)]
        return [
            Part(slice(None), functools.partial(self._part, heads=group, call=call, choices=choices and choices[i]))
            for i, group in enumerate(groups)
        ]

    def _part(self, x: Tensor, heads: slice, call: Call, choices: Any) -> Out:
        share = self.projection.share(heads)
        q, k, v = share.together(share.prepare(x, call.at, None)[0])
        q, k = (self.position.turn(t, call.at, call.memo) for t in (q, k))
        choices, _ = self._choose(q, Recalled(k, v, call.at, None), call, None, choices, heads)
        noted = self._note(q, k, choices, call, heads)
        out = share.output(self._attend(q, k, v, call.at, call, choices))
        return Out(out, None, noted.losses, choices, noted.records)

    def _choose(
        self, q: Tensor, met: Recalled, call: Call, past: Any, choices: Any, heads: slice = EVERY
    ) -> tuple[Any, Any]:
        """Choices, and the selector's state."""
        if self.select is None or choices is not None:
            return choices, None
        chosen = self.select.choose(q, for_each(q, met.k), call, met.places, past, heads)
        return chosen.choices, chosen.state

    def _note(self, q: Tensor, k: Tensor, choices: Any, call: Call, heads: slice = EVERY) -> Noted:
        """What the selector tells training."""
        if self.select is None or not self.training:
            return Noted()
        return self.select.note(q, for_each(q, k), choices, call, heads)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, to: Places, call: Call, choices: Any) -> Tensor:
        plan = None if self.select is None else self.select.plan(choices, call.at, to)
        rate = self.spec.dropout if self.training else 0.0
        return attend(Request(q, k, v, call.at, to, self.pattern, self.position, self.scale, rate, call.memo, plan))

    def _recall(self, x: Tensor, call: Call, state: Any) -> tuple["ProjectAt", Recalled]:
        """Where queries come from, and what they meet; its `state` is what remains of x even if nobody attends."""
        tail = None
        if self.projection.looks_back:
            tail, state, _ = state or LookedBack()
            x, tail = self.projection.prepare(x, call.at, tail)
        project = ProjectAt(self.projection, self.position, call.memo, x, self.scale)
        recalled = self.memory(x, call, state, project)
        if self.projection.looks_back:
            recalled = recalled._replace(state=LookedBack(tail, recalled.state))
        return project, recalled

    def skip(self, x: Tensor, call: Call, state: Any = None) -> Any:
        """Keys and values alone, and what a selector notes of them."""
        if self.select is not None or self.projection.output_looks_back:
            return self(x, call, state).state
        return self._recall(x, call, state)[1].state


class Selected(NamedTuple):
    """The state of attention whose selector has one too."""

    memory: Any
    select: Any


class LookedBack(NamedTuple):
    """The state of attention whose projection has one too: of `prepare`, and of `finish`."""

    tail: Any = None
    memory: Any = None
    out: Any = None


def finished(projection: ProjectionLayer, heads: Tensor, call: Call, past: Any, state: Any) -> tuple[Tensor, Any]:
    """The output of heads (B, H, T, D), and the state with what `finish` adds to it; past: the state before this call."""
    if not projection.output_looks_back:
        return projection.output(heads), state
    y, out = projection.finish(heads, call.at, None if past is None else past.out)
    return y, state._replace(out=out)


class ProjectAt:
    """Keys and values of inputs, as they enter the score at their places, and the queries of this call's tokens.

    Where the keys of these very tokens are asked for, their queries are made together with them.
    """

    def __init__(
        self, projection: ProjectionLayer, position: PositionLayer, memo: Memo, x: Tensor, scale: float
    ) -> None:
        self.projection, self._position, self._memo, self._x, self._scale = projection, position, memo, x, scale
        self._queries: Tensor | None = None

    def __call__(self, inputs: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        if inputs is self._x:
            self._queries, k, v = self.projection.together(inputs)
        else:
            k, v = self.projection.keys_values(inputs)
        return self._position.turn(k, places, self._memo), v

    def queries(self) -> Tensor:
        """(B, H, T, D), not yet turned."""
        return self.projection.queries(self._x) if self._queries is None else self._queries

    def weights(self, inputs: Tensor, at: Places, k: Tensor, to: Places, pattern: Pattern) -> Tensor:
        """How much each of these inputs would attend to each of these keys, (B, H, T, S)."""
        q = self._position.turn(self.projection.queries(inputs), at, self._memo)
        return attention_weights(Request(q, k, k, at, to, pattern, self._position, self._scale, 0.0, self._memo))


def head_problems(heads: int, kv_heads: int | None, head_dim: int | None, site: Site) -> Iterator[tuple[str, str]]:
    """What is wrong with a number of heads at a width."""
    if heads < 1 or (kv_heads is not None and kv_heads < 1) or (head_dim is not None and head_dim < 1):
        yield f"heads, kv_heads and head_dim must be positive, got {heads}, {kv_heads} and {head_dim}", "heads=8"
        return
    if head_dim is None and site.dim % heads:
        divisors = [h for h in range(1, site.dim + 1) if site.dim % h == 0]
        yield (
            f"dim {site.dim} does not split into {heads} heads",
            f"heads={min(divisors, key=lambda h: abs(h - heads))}",
        )
    if kv_heads is not None and heads % kv_heads:
        near = max(k for k in range(1, min(heads, kv_heads) + 1) if heads % k == 0)
        yield f"{heads} query heads cannot share {kv_heads} key heads evenly", f"kv_heads={near}"


def pattern_problems(pattern: Pattern, inside: Site) -> Iterator[tuple[str, str]]:
    """What is wrong with what is seen inside an attention part."""
    if inside.causal and not pattern.causal:
        what = f"a decoder must not see the future, but {pattern!r} is not causal"
        yield what, f"pattern=Causal() & ({pattern!r})"
    elif inside.heads > 0:
        yield from blind_problems(pattern, inside)


def heads_inside(site: Site, heads: int, kv_heads: int | None, head_dim: int | None) -> Site:
    """The site of what is inside an attention part."""
    return site.replace(heads=heads, kv_heads=kv_heads or heads, head_dim=head_dim or site.dim // max(heads, 1))
