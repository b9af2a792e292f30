"""The Memorizing Transformer: what was stated beyond the window is told by a memory, and by nothing else."""

from collections.abc import Iterator

import torch
from torch import nn

from formers.attention import Attention, Blocks, Causal
from formers.attention.memorizing import MemorizingAttention
from formers.attention.memorizing.layer import MemorizingAttentionLayer
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.call import Layer
from formers.claim.fact_task import TINY, Answerer, Facts
from formers.report.rows import Row, value_at_least, value_at_most

HEADS, TOP_K = 2, 8
ANSWERER = Answerer()
MEMORY, NONE = "a memory", "no memory"


@CLAIMS.case(
    "memorizing_transformer",
    "a memory (arXiv:2203.08913) answers questions for what was stated four segments of 32 tokens before, one layer, dim 64, "
    "which sees no further than the segment before its own",
    unit="accuracy",
    rival=Rival("guessing"),
)
def memorizing(trial: Trial) -> Iterator[Row]:
    """Learns on texts of which half ask within the segment of the fact, with a memory and without."""
    answerer = TINY if trial.quick else ANSWERER
    kinds = attentions(answerer.task)
    models = dict(zip(kinds, answerer.learn_each(trial, kinds), strict=True))
    for name, model in models.items():
        found = answerer.task.evaluate(model)
        goal, better = (value_at_least(0.9), "higher") if name == MEMORY else (value_at_most(0.2), "lower")
        note = f"within a segment {found['near']:.1%}"
        yield trial.row(
            f"{name}, beyond the window", found["far"], answerer.task.chance, goal=goal, better=better, note=note
        )
    note = "of the heads' gates, which begin at 0.5"
    yield trial.row("the most open gate", max(gates(models[MEMORY])), rival=None, goal=value_at_least(0.5), note=note)


def attentions(task: Facts) -> dict[str, tuple[Layer, ...]]:
    """What is compared, layer by layer. One layer, so that nothing finds a near fact but the keys that are stored."""
    local = Attention(HEADS, pattern=Causal() & Blocks(task.segment, before=1))
    memory = MemorizingAttention(HEADS, task.segment, task.length, TOP_K)
    return {MEMORY: (memory,), NONE: (local,)}


def gates(model: nn.Module) -> list[float]:
    """The shares that heads take from the memory."""
    layers = (module for module in model.modules() if isinstance(module, MemorizingAttentionLayer))
    return [float(gate) for layer in layers for gate in torch.sigmoid(layer.gate.detach())]
