"""Training with a hard mask: only the active units of a sparse feed-forward are computed, and what that costs in loss."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from formers.bench.registry import BENCHES, Rival
from formers.bench.study import NEEDS, TINY, Study
from formers.bench.trial import Trial
from formers.call import Call, Layer
from formers.feedforward import MLP
from formers.places import Places
from formers.report.rows import Row, ratio_at_least
from formers.sparse import SparseFF
from formers.spec import Site, assign

DIM, HIDDEN, BLOCK, RANK, LENGTH = 512, 2048, 64, 8, 2048
DENSE = Rival("a dense feed-forward of as many units (ReLU)")
MIXED = Rival("the paper's mixture of masks, hard in 30 % of all passes")


@BENCHES.case(
    "sparse-training",
    "a sparse feed-forward (dim 512, 2,048 units in blocks of 64, rank 8, 2,048 tokens, fp32), forward and backward",
    unit="ms",
    better="lower",
    rival=DENSE,
    goal=ratio_at_least(3.0),
)
def hard_mask(trial: Trial) -> Iterator[Row]:
    """The hard mask beside the dense layer; the mixture, which computes all units, for comparison."""
    length = 64 if trial.quick else LENGTH
    for name, hard, goal in (("hard mask", 1.0, ratio_at_least(3.0)), ("soft mask", 0.0, None)):
        ours = lesson(SparseFF(HIDDEN, BLOCK, RANK, hard=hard), length)
        duel = trial.duel(ours, lambda: lesson(MLP(HIDDEN, "relu"), length))
        yield trial.row(f"{name}, {length:,} tokens", *duel.milliseconds(), goal=goal)


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


def lesson(layer: Layer, length: int) -> Callable[[], None]:
    """One forward and backward pass of a layer in training, each with other random numbers."""
    torch.manual_seed(0)
    module = layer.build(Site(dim=DIM)).train()
    x, seeds = torch.randn(1, length, DIM, requires_grad=True), iter(range(1 << 30))
    grad = torch.randn_like(x)

    def run() -> None:
        module.zero_grad()
        x.grad = None
        call = Call(Places.run(0, length), seed=next(seeds), remember=False)
        module(x, call).y.backward(grad)

    return run
