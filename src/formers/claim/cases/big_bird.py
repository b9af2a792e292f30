"""Big Bird: what random blocks bring within reach, and what global tokens do."""

from collections.abc import Iterator
from typing import Any

import torch

from formers.attention import Attention, Blocks, Global, Pattern, RandomBlocks
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.claim.marker_task import TINY, Finder
from formers.places import Places, keys, queries
from formers.report.rows import Row, value_at_least, value_at_most

HEADS, BLOCK, RANDOM = 4, 4, 3
STEPS = 1000  # what takes two hops is learned later than what takes one
WINDOWED, DRAWN, STARRED = "window of 3 blocks", "and 3 random blocks", "and the first block global"
GOALS: dict[str, dict[str, Any]] = {
    WINDOWED: {"better": "lower", "goal": value_at_most(0.15)},  # the share that guesses, and noise
    STARRED: {"goal": value_at_least(0.95)},
}


@CLAIMS.case(
    "big_bird",
    "windows, random blocks and a global block of arXiv:2007.14062 on marker retrieval "
    "(128 tokens in blocks of 4, 12 markers, 2 layers, dim 48)",
    unit="accuracy",
    rival=Rival("one who guesses"),
)
def big_bird(trial: Trial) -> Iterator[Row]:
    """Learns with each part of the pattern on top of those before it; what two layers reach bounds what can be found."""
    finder = TINY if trial.quick else Finder(steps=STEPS)
    kinds = patterns(finder.task.length)
    models = finder.learn_each(trial, {name: Attention(HEADS, pattern=pattern) for name, pattern in kinds.items()})
    found = {}
    for (name, pattern), model in zip(kinds.items(), models, strict=True):
        found[name] = finder.accuracy(model)
        told = f"two layers reach {reach(pattern, finder):.0%} of the places where a marker may stand"
        yield trial.row(name, found[name], finder.task.chance, note=told, **GOALS.get(name, {}))
    for name, more in (
        ("random blocks above the window", found[DRAWN] - found[WINDOWED]),
        ("a global block above random ones", found[STARRED] - found[DRAWN]),
    ):
        yield trial.row(name, more, rival=None, goal=value_at_least(0.1))


def patterns(length: int) -> dict[str, Pattern]:
    """What is compared; each head draws its own blocks."""
    window = Blocks(BLOCK, before=1, after=1)
    drawn = window | RandomBlocks(BLOCK, RANDOM, HEADS, length=length)
    return {WINDOWED: window, DRAWN: drawn, STARRED: drawn | Global(BLOCK)}


def reach(pattern: Pattern, finder: Finder) -> float:
    """The share of the places where a marker may stand from which `depth` layers can carry it to the first token."""
    at = Places.run(0, finder.task.length)
    by_head = pattern.visible(queries(at), keys(at), torch.arange(HEADS)[:, None, None])
    seen = by_head.flatten(0, 1).any(0).double()
    reached = torch.linalg.matrix_power(seen, finder.depth)[0] > 0
    return reached[finder.task.nearest : -1].double().mean().item()
