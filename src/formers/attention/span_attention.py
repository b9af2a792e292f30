"""Attention whose heads learn how far back they look, and do no work beyond that."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from formers.attention.backends import attend
from formers.attention.layer import ProjectAt, head_problems, heads_inside
from formers.attention.pattern import Causal, Pattern, Window
from formers.attention.plan import BLOCK, Plan, block_plan, dense_plan
from formers.attention.project import Dense
from formers.attention.request import Request
from formers.attention.span_usage import SpanUsage, is_told, told_spans
from formers.attention.spans import HeadSpans, SoftSpan, Spans, record_of, with_reach
from formers.call import Call, Layer, Out
from formers.memory import KeepAll, MemoryRule
from formers.places import Memo, Places
from formers.position.core import NoPosition, Position
from formers.position.relative_keys import RelativeKeys
from formers.position.rotary import Rotary
from formers.residual import dropout_problems
from formers.spec.core import Site


class SpanAttention(Layer):
    """Adaptive attention span. Sukhbaatar et al. 2019, arXiv:1905.07799.

    A key x places back weighs m(x) = clip((ramp + z - x) / ramp, 0, 1) beside e^score, before rows are normalised, where z
    is the span of the head, from 0 to `longest`. At z = longest this is attention over Causal() & Window(longest).

    spans: what z depends on, `HeadSpans` or `QuerySpans`. penalty: of the loss "span", penalty * mean z; layers add up.
    head_dim, dropout: as of attention. position: RelativeKeys, the paper's; Rotary or none.

    Heads are worked on in groups of like reach, z + ramp rounded up to a multiple of 64, each over the keys within it.
    In evaluation, with `HeadSpans`, the state keeps no more than the furthest reach; a state that is to be continued after
    spans have grown has to be made in training mode, where it keeps `longest`.

    Differs from the paper: a token sees itself, at x = 0, as one of its `longest` keys. In an encoder x is the distance to
    either side.
    """

    heads: int
    longest: int
    ramp: int = 32
    spans: Spans = HeadSpans()
    penalty: float = 2e-6
    head_dim: int | None = None
    position: Position = NoPosition()
    projection: Dense = Dense()
    dropout: float = 0.0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from head_problems(self.heads, None, self.head_dim, site)
        yield from dropout_problems(self.dropout)
        if self.longest < 1:
            yield f"spans of at most {self.longest} tokens show nothing, not even the query's own key", "longest=8192"
        if self.ramp < 1:
            yield f"a ramp of {self.ramp} tokens gives spans no gradient", "ramp=32"
        if self.penalty < 0:
            yield f"penalty={self.penalty} would reward long spans", "penalty=2e-6"
        if not isinstance(self.position, (NoPosition, RelativeKeys, Rotary)):
            what = f"heads are worked on in groups of like reach, and {self.position!r} is not cut into groups"
            yield what, f"position=RelativeKeys({max(1, self.longest)})"

    def pattern_at(self, site: Site) -> Pattern:
        """All that the longest span shows."""
        return shown(self.longest, causal=site.causal)

    def inside(self, site: Site) -> Site:
        return heads_inside(site, self.heads, None, self.head_dim)

    def build(self, site: Site) -> nn.Module:
        return SpanAttentionLayer(self, site)


class SpanAttentionLayer(nn.Module):
    def __init__(self, spec: SpanAttention, site: Site) -> None:
        super().__init__()
        self.spec, self.causal, self.pattern = spec, site.causal, spec.pattern_at(site)
        inner = spec.inside(site)
        self._inner, self.record = inner, record_of(inner)
        self.scale: float = inner.head_dim**-0.5
        self.projection = spec.projection.build(inner)
        self.position = spec.position.build(inner)
        self.spans = spec.spans.build(inner)

    def forward(self, x: Tensor, call: Call, state: Any = None, choices: Any = None) -> Out:
        shares = self.spans(x)
        spans = shares.to(torch.promote_types(shares.dtype, torch.float32)) * self.spec.longest
        groups = self.groups(spans, call.at)
        project = ProjectAt(self.projection, self.position, call.memo, x, self.scale)
        recalled = self._memory(groups)(x, call, state, project)
        q = self.position.turn(project.queries(), call.at, call.memo)
        met = [self._meeting(group, call, recalled.places) for group in groups]
        heads = [self._attend(q, recalled.k, recalled.v, spans, one, call) for one in met]
        y = self.projection.output(_in_order(heads, groups))
        records: dict[str, tuple[Tensor, ...]] = {}
        if is_told(self.training, call):
            full = plan_of(self.pattern, call.at, recalled.places, call.memo)
            works = [(one.group.heads, one.plan.pairs) for one in met]
            records[self.record] = (told_spans(spans.detach(), works, full.pairs, call.at, len(x)),)
        return Out(y, recalled.state, {"span": self.spec.penalty * mean_of(spans, call.at)}, None, records)

    @torch.no_grad()
    def usage(self, length: int) -> SpanUsage | None:
        """What the spans come to in one pass over a text of that many tokens; None where its content decides."""
        if not self.spans.settled:
            return None
        at, memo = Places.run(0, length), Memo()
        spans = self.spec.longest * self.spans(torch.empty(1, 0, self._inner.dim))
        groups = self.groups(spans, at)
        plans = [plan_of(shown(group.width, causal=self.causal), at, at, memo) for group in groups]
        done = sum(len(group.heads) * plan.pairs for group, plan in zip(groups, plans, strict=True))
        full = self.spec.heads * plan_of(self.pattern, at, at, memo).pairs
        return SpanUsage(spans.flatten().tolist(), 1 - done / full)

    def groups(self, spans: Tensor, at: Places) -> list["Group"]:
        """Heads of like reach together, for spans (1 or B, H, 1 or T)."""
        reach = spans.detach() + self.spec.ramp
        if at.real is not None and not self.spans.settled:  # what padding would look at is nobody's business
            reach = torch.where(at.real[:, None], reach, 0)
        blocks = (reach.amax((0, 2)) / BLOCK).ceil().nan_to_num(nan=float(self.spec.longest))
        widths = (blocks * BLOCK).clamp(1, self.spec.longest).long().tolist()
        return [Group(width, [h for h, own in enumerate(widths) if own == width]) for width in sorted(set(widths))]

    def _memory(self, groups: list["Group"]) -> MemoryRule:
        kept = self.pattern
        if self.spans.settled and not self.training:
            kept = shown(groups[-1].width, causal=self.causal)
        return KeepAll().build(self._inner, kept)

    def _meeting(self, group: "Group", call: Call, to: Places) -> "Meeting":
        pattern = shown(group.width, causal=self.causal)
        count = within(group.width, call.at, to)
        if count < to.length:
            whole = to
            to = call.memo.once(("last", count, whole), lambda: whole.last(count))
        return Meeting(group, pattern, to, plan_of(pattern, call.at, to, call.memo))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, spans: Tensor, met: "Meeting", call: Call) -> Tensor:
        """The heads of a group, (B, h, T, D)."""
        spec, heads = self.spec, met.group.heads
        k, v = (t[:, :, t.shape[2] - met.to.length :] for t in (k, v))
        if len(heads) < spec.heads:
            index = torch.tensor(heads, device=q.device)
            q, k, v, spans = (t.index_select(1, index) for t in (q, k, v, spans))
        reach: Tensor | None = spans + spec.ramp
        if not self.spans.settled:
            q, reach = with_reach(q, spans + spec.ramp), None
        position = SoftSpan(self.position, spec.ramp, self.scale, reach)
        rate = spec.dropout if self.training else 0.0
        return attend(Request(q, k, v, call.at, met.to, met.pattern, position, self.scale, rate, call.memo, met.plan))


class Group(NamedTuple):
    """Heads, and within what window of keys all of them see all that they can."""

    width: int
    heads: list[int]


class Meeting(NamedTuple):
    """The keys that a group of heads meets: where they stand, and in what tiles."""

    group: Group
    pattern: Pattern
    to: Places
    plan: Plan


def shown(width: int, *, causal: bool) -> Pattern:
    """All that a span of that many tokens can show."""
    return Causal() & Window(width) if causal else Window(width)


def within(width: int, at: Places, to: Places) -> int:
    """How many of the last keys may stand within a window of any query."""
    if at.start is None or to.start is None:
        return to.length
    return min(to.length, max(1, to.start + to.length - (at.start - width + 1)))


def plan_of(pattern: Pattern, at: Places, to: Places, memo: Memo) -> Plan:
    """The tiles that cost least: everything at once, or the blocks that the pattern reaches."""

    def make() -> Plan:
        dense = dense_plan(at.length, to.length, at.device)
        if at.length < BLOCK:
            return dense
        return min(dense, block_plan(pattern, at, to), key=lambda plan: plan.pairs)

    plan: Plan = memo.once(("span plan", pattern, at, to), make)
    return plan


def mean_of(spans: Tensor, at: Places) -> Tensor:
    """The mean over heads and real tokens of (1 or B, H, 1 or T)."""
    if at.real is None or spans.shape[-1] == 1:
        return spans.mean()
    real = at.real[:, None].to(spans.dtype)
    return (spans * real).sum() / (real.sum() * spans.shape[1]).clamp(min=1)


def _in_order(parts: list[Tensor], groups: list[Group]) -> Tensor:
    """The heads of all groups, (B, H, T, D), in their own order."""
    if len(parts) == 1:
        return parts[0]
    order = [head for group in groups for head in group.heads]
    back = torch.tensor(order, device=parts[0].device).argsort()
    return torch.cat(parts, 1).index_select(1, back)
