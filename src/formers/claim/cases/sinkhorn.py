"""Sinkhorn attention: a block that is sorted to one's own says more than the block before it, or one at random."""

from collections.abc import Iterator

from formers.attention import Attention, Blocks, Causal
from formers.attention.sinkhorn import SinkhornAttention
from formers.bench.registry import CLAIMS
from formers.bench.trial import Trial
from formers.call import Layer
from formers.claim.at_random import BlocksAtRandom
from formers.claim.copy_task import TINY, Copier, Copying
from formers.report.rows import Row, value_at_least

BLOCK = 8
# Three blocks to a word: with four, how long learning stands still at first differs by hundreds of steps between seeds.
COPIER = Copier(Copying(word=23), steps=800)
CLEARLY = value_at_least(0.05)


@CLAIMS.case(
    "sinkhorn",
    "Sinkhorn attention of arXiv:2002.11296, blocks of 8, on the copy task (23 of 127 symbols, 2 layers, dim 64)",
    unit="accuracy",
)
def sinkhorn(trial: Trial) -> Iterator[Row]:
    """Learns with each block meeting itself and one other: that before it, one at random, one that is sorted to it."""
    copier = TINY if trial.quick else COPIER
    kinds = attentions()
    models = copier.learn_each(trial, kinds)
    found = {}
    for name, model in zip(kinds, models, strict=True):
        found[name] = copier.accuracy(model)
        yield trial.row(name, found[name])
    local, chance, once, _ = found.values()
    yield trial.row("sorted above the block before", once - local, goal=CLEARLY)
    yield trial.row("sorted above random", once - chance, goal=CLEARLY)


def attentions() -> dict[str, Layer]:
    """Two heads, whose queries meet two blocks each."""
    return {
        "own block and the one before": Attention(2, pattern=Causal() & Blocks(BLOCK, before=1)),
        "own block and a random one": Attention(2, select=BlocksAtRandom(BLOCK, count=1)),
        "own block and a sorted one, 1 iteration": SinkhornAttention(2, block=BLOCK, iterations=1),
        "own block and a sorted one, 2 iterations": SinkhornAttention(2, block=BLOCK, iterations=2),
    }
