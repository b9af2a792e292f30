"""Feedback Transformer: two layers that feed back follow a state which as many plain layers lose."""

from collections.abc import Iterator
from dataclasses import replace

from formers.attention import Attention
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.block import Block, stack
from formers.call import Layer
from formers.claim.group_task import TINY, Multiplier
from formers.feedback import Feedback
from formers.feedforward import MLP
from formers.model import parameter_count
from formers.position import AbsolutePosition, Learned
from formers.report.rows import Row, value_at_least, value_at_most
from formers.residual import PreNorm

HEADS, HIDDEN = 4, 128
FEEDBACK, TWO, FOUR = "feedback, 2 layers", "Transformer, 2 layers", "Transformer, 4 layers"
LONGER = 2  # times the length of training
GOALS = {FEEDBACK: value_at_least(0.9), TWO: value_at_most(0.55), FOUR: None}


@CLAIMS.case(
    "feedback_transformer",
    "the product of 24 random generators of S4, told after each of them; after arXiv:2002.09402, whose memories "
    "follow states that plain layers lose: dim 32, 4 heads",
    unit="accuracy",
    rival=Rival("one who guesses"),
)
def feedback_transformer(trial: Trial) -> Iterator[Row]:
    """Learns with feedback and without; the last third of a sequence is where plain layers have lost the product."""
    multiplier = TINY if trial.quick else Multiplier()
    kinds = depths(multiplier.task.length)
    for name, model in zip(kinds, multiplier.learn_each(trial, kinds), strict=True):
        task, better = multiplier.task, "lower" if name == TWO else "higher"
        found, note = task.evaluate(model), f"{parameter_count(model):,} parameters"
        yield trial.row(name, found["accuracy"], task.chance, goal=GOALS[name], better=better, note=note)
        yield trial.row(f"{name}: last third", found["last"], task.chance, better=better)
        if name == FEEDBACK:
            longer = replace(task, length=LONGER * task.length).evaluate(model)
            yield trial.row(f"{name}: {LONGER} times as many generators", longer["accuracy"], task.chance)


def depths(length: int) -> dict[str, tuple[tuple[Layer, ...], AbsolutePosition | None]]:
    """What is compared, for sequences of that length; feedback has its positions in its memory."""
    feed_forward, places = MLP(HIDDEN, "relu"), Learned(length)
    plain = Block((Attention(HEADS), feed_forward))
    return {
        FEEDBACK: ((Feedback(2, HEADS, feed_forward, length, residual=PreNorm()),), None),
        TWO: (stack(plain, times=2), places),
        FOUR: (stack(plain, times=4), places),
    }
