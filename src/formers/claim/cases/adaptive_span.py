"""Adaptive span: heads look as far as the task asks for, and no further."""

from collections.abc import Iterator

from torch import nn

from formers.attention import Attention, Causal, HeadSpans, QuerySpans, SpanAttention, Window
from formers.attention.span_attention import SpanAttentionLayer
from formers.attention.spans import Spans
from formers.bench.registry import CLAIMS
from formers.bench.trial import Trial
from formers.call import Layer
from formers.claim.distance_task import TINY, DistanceLearner
from formers.position import RelativeKeys
from formers.report.rows import Row, value_at_least, value_at_most

LONGEST, HEADS = 64, 4
PENALTY, LARGER = 5e-4, 5e-3  # of the mean span of a layer, in tokens
NEAR = 16  # tokens: heads that look less far back than this cannot serve the far tokens, not even two of them in turn

FIXED = "fixed span of 64"
WIDE = "ramp 32, from nothing"
FROM_NOTHING = "ramp 8, from nothing"
FROM_ALL = "ramp 8, from 64"
STRICT = "ramp 8, from 64, ten times the penalty"
DYNAMIC = "ramp 8, a span for each query, from 32"


@CLAIMS.case(
    "adaptive_span",
    "learned spans of up to 64 tokens, arXiv:1905.07799: most tokens ask for the one 3 back, 15 % for the one 24 back "
    "(16 symbols, 2 layers, 4 heads, dim 48)",
    unit="accuracy",
)
def adaptive_span(trial: Trial) -> Iterator[Row]:
    """Learns the task under fixed, adaptive and dynamic spans, and tells how far each comes to look."""
    learner = TINY if trial.quick else DistanceLearner()
    found = {}
    for name, model in zip(KINDS, learner.learn_each(trial, KINDS), strict=True):
        found[name] = told = learner.task.evaluate(model)
        goal = value_at_most(0.5) if name == FROM_NOTHING else None
        yield trial.row(f"3 back, {name}", told["near"])
        yield trial.row(f"24 back, {name}", told["far"], goal=goal)
        if name != FIXED:
            goal = None if name in (FROM_NOTHING, STRICT) else value_at_most(LONGEST / 2)
            yield trial.row(f"mean span, {name}", told["mean_span"], unit="tokens", better="lower", goal=goal)
        if name == FROM_ALL:
            yield from _of_heads(trial, model, learner.task.far)
    for name in (WIDE, FROM_ALL, DYNAMIC):
        lost = found[FIXED]["far"] - found[name]["far"]
        yield trial.row(f"24 back, what it loses: {name}", lost, better="lower", goal=value_at_most(0.02))
    shorter = found[FROM_ALL]["mean_span"] - found[STRICT]["mean_span"]
    yield trial.row("what ten times the penalty takes off the span", shorter, unit="tokens", goal=value_at_least(1.0))


def _of_heads(trial: Trial, model: nn.Module, far: int) -> Iterator[Row]:
    """Some head still looks far enough, and most do not."""
    ends = ramp_ends(model)
    furthest, near = max(ends), sum(end < NEAR for end in ends)
    most = value_at_least(len(ends) // 2 + 1)
    yield trial.row("furthest end of a ramp", furthest, unit="tokens", goal=value_at_least(far))
    yield trial.row(f"heads whose ramp ends within {NEAR}, of {len(ends)}", near, unit="heads", goal=most)


def spanned(ramp: int, spans: Spans, penalty: float = PENALTY) -> Layer:
    """Attention with learned spans."""
    return SpanAttention(HEADS, LONGEST, ramp, spans, penalty, position=RelativeKeys(LONGEST))


KINDS: dict[str, Layer] = {
    FIXED: Attention(HEADS, pattern=Causal() & Window(LONGEST), position=RelativeKeys(LONGEST)),
    WIDE: spanned(32, HeadSpans()),
    FROM_NOTHING: spanned(8, HeadSpans()),
    FROM_ALL: spanned(8, HeadSpans(1.0)),
    STRICT: spanned(8, HeadSpans(1.0), LARGER),
    DYNAMIC: spanned(8, QuerySpans(0.5)),
}


def ramp_ends(model: nn.Module) -> list[float]:
    """How far back each head sees, its span and its ramp, in tokens; of spans that content does not decide."""
    ends: list[float] = []
    for layer in model.modules():
        usage = layer.usage(1) if isinstance(layer, SpanAttentionLayer) else None
        if isinstance(layer, SpanAttentionLayer) and usage is not None:
            ends += [span + layer.spec.ramp for span in usage.spans]
    return ends
