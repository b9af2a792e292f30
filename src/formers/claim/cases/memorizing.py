"""The Memorizing Transformer: codes that are repeated beyond the window are told by a memory, and by nothing else."""

from collections.abc import Iterator

import torch
from torch import nn

from formers.attention import Attention, Blocks, Causal, Window
from formers.attention.memorizing import MemorizingAttention
from formers.attention.memorizing.layer import MemorizingAttentionLayer
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.call import Layer
from formers.claim.repeat_task import TINY, Repeater, Repeats
from formers.position import T5Buckets
from formers.report.rows import Row, value_at_least, value_at_most

HEADS, TOP_K = 2, 8
REPEATER = Repeater()
MEMORY, NONE = "a memory in the second layer", "no memory"


@CLAIMS.case(
    "memorizing_transformer",
    "a memory (arXiv:2203.08913) tells a code of 8 symbols that is repeated four segments of 32 tokens later, 2 layers, "
    "dim 64, which see no further than the segment before their own",
    unit="accuracy",
    rival=Rival("one who knows which symbols of the code have been repeated"),
)
def memorizing(trial: Trial) -> Iterator[Row]:
    """Learns on texts of which half repeat codes within a segment, with a memory and without."""
    repeater = TINY if trial.quick else REPEATER
    kinds = attentions(repeater.task)
    models = dict(zip(kinds, repeater.learn_each(trial, kinds), strict=True))
    for name, model in models.items():
        found = repeater.task.evaluate(model)
        goal, better = (value_at_least(0.9), "higher") if name == MEMORY else (value_at_most(0.06), "lower")
        note = f"within a segment {found['near']:.1%}"
        yield trial.row(
            f"{name}, beyond the window", found["far"], repeater.task.chance, goal=goal, better=better, note=note
        )
    note = "of the heads' gates, which begin at 0.5"
    yield trial.row("the most open gate", max(gates(models[MEMORY])), rival=None, goal=value_at_least(0.5), note=note)


def attentions(task: Repeats) -> dict[str, tuple[Layer, ...]]:
    """What is compared, layer by layer. The first tells each token the one before it, and sees nothing else; the second
    finds the token that had one's own before it, which needs no positions."""
    second = Attention(HEADS, pattern=Causal() & Blocks(task.segment, before=1))
    memory = MemorizingAttention(HEADS, task.segment, task.length, TOP_K)
    first = Attention(HEADS, pattern=Causal() & Window(2), position=T5Buckets())
    return {MEMORY: (first, memory), NONE: (first, second)}


def gates(model: nn.Module) -> list[float]:
    """The shares that heads take from the memory."""
    layers = (module for module in model.modules() if isinstance(module, MemorizingAttentionLayer))
    return [float(gate) for layer in layers for gate in torch.sigmoid(layer.gate.detach())]
