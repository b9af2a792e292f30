"""Training with a hard mask: only the active units of a sparse feed-forward are computed; and what sparsity costs in loss."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from formers.bench.lesson import Shape, ours
from formers.bench.registry import BENCHES, Rival
from formers.bench.study import NEEDS, TINY, Study
from formers.bench.trial import Trial
from formers.feedforward import MLP
from formers.report.rows import Row, ratio_at_least
from formers.sparse import SparseFF
from formers.spec import assign

DIM, HIDDEN, BLOCK, RANK, LENGTH = 512, 2048, 64, 8, 2048
DENSE = Rival("a dense feed-forward of as many units (ReLU)")


@BENCHES.case(
    "sparse-training",
    "a sparse feed-forward (dim 512, 2,048 units in blocks of 64, rank 8, 2,048 tokens, fp32), forward and backward",
    unit="ms",
    better="lower",
    rival=DENSE,
)
def hard_mask(trial: Trial) -> Iterator[Row]:
    """The hard mask beside the dense layer; the mixture, which computes all units, for comparison."""
    shape = Shape(64 if trial.quick else LENGTH, DIM)
    for name, hard, goal in (("hard mask", 1.0, ratio_at_least(3.0)), ("soft mask", 0.0, None)):
        sparse = ours(SparseFF(HIDDEN, BLOCK, RANK, hard=hard), shape)
        duel = trial.duel(sparse, lambda: ours(MLP(HIDDEN, "relu"), shape))
        yield trial.row(f"{name}, {shape.length:,} tokens", *duel.milliseconds(), goal=goal)


class Taught(NamedTuple):
    """How a sparse feed-forward learns: the share of passes with a hard mask, its blocks, and how many times as long."""

    hard: float = 1.0
    block: int = 16
    longer: int = 1


TAUGHT = {
    "the paper's mixture, hard in 30 % of all passes": Taught(hard=0.3),
    "hard mask throughout": Taught(),
    "hard mask throughout, blocks of 4": Taught(block=4),
    "hard mask throughout, three times as many steps": Taught(longer=3),
}


@BENCHES.case(
    "sparse-training",
    "the loss by mask, blocks and steps (4 layers, dim 128, blocks of 16, 600 steps of 2,048 bytes, one seed)",
    unit="bits/byte",
    better="lower",
    rival=Rival("a dense model of as many parameters, after as many steps"),
    needs=NEEDS,
)
def loss(trial: Trial) -> Iterator[Row]:
    """What a sparse feed-forward alone loses to the dense one, and what of that is won back by what."""
    study = TINY if trial.quick else Study()
    spans = {taught.longer for taught in TAUGHT.values()}
    steps = study.steps * (sum(spans) + sum(taught.longer for taught in TAUGHT.values()))
    with study.text(trial) as text, trial.progress("learning", steps) as tick:
        dense: dict[int, float] = {}
        for name, taught in TAUGHT.items():
            own = replace(study, steps=taught.longer * study.steps, block=taught.block)
            parts = [own.spec("scaling_transformer", some, text.tokenizer.vocab) for some in ((), ("feed_forward",))]
            sparse: Any = assign(parts[1], f"blocks[*].sublayers[1].hard={taught.hard}")
            if taught.longer not in dense:
                dense[taught.longer] = own.learned(parts[0], text, 0, f"dense, {own.steps:,} steps", tick)
            yield trial.row(name, own.learned(sparse, text, 0, name, tick), dense[taught.longer])
