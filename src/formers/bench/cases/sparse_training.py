"""Training with a hard mask: only the active units of a sparse feed-forward are computed, and what that costs in loss."""

from collections.abc import Iterator
from typing import Any

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
MIXED = Rival("the paper's mixture of masks, hard in 30 % of all passes")


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


@BENCHES.case(
    "sparse-training",
    "the loss with the hard mask throughout (4 layers, dim 128, blocks of 16, 600 steps of 2,048 bytes, one seed)",
    unit="bits/byte",
    better="lower",
    rival=MIXED,
    needs=NEEDS,
)
def loss(trial: Trial) -> Iterator[Row]:
    """The same model by either mask."""
    study = TINY if trial.quick else Study()
    with study.text(trial) as text, trial.progress("learning", 2 * study.steps) as tick:
        mixed = study.spec("scaling_transformer", ("feed_forward",), text.tokenizer.vocab)
        hard: Any = assign(mixed, "blocks[*].sublayers[1].hard=1.0")
        found = [study.learned(spec, text, 0, name, tick) for name, spec in (("hard", hard), ("mixed", mixed))]
    yield trial.row("hard mask throughout", *found)
