"""BlockBERT: heads that see their own block find nothing far away, and one head that is shifted finds all of it."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from formers.attention import Attention, ByHead, Everything, Pattern, Permuted
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.claim.marker_task import TINY, Finder
from formers.places import Places, keys, queries
from formers.report.rows import Row, value_at_least, value_at_most

HEADS, BLOCKS = 4, 4
FINDER = Finder(depth=3, steps=900)  # after 500 steps a shifted head has found 7 of 10
OWN, SHIFTED, ALL = "all heads at their own block", "one of four heads at the next block", "all heads everywhere"
GOALS = {OWN: value_at_most(0.15), SHIFTED: value_at_least(0.95), ALL: value_at_least(0.95)}


@CLAIMS.case(
    "blockbert",
    "blocks that are permuted by head (arXiv:1911.02972) look for 1 of 12 markers among 128 tokens in 4 blocks, "
    "3 layers, dim 48",
    unit="accuracy",
    rival=Rival("one who guesses"),
)
def blockbert(trial: Trial) -> Iterator[Row]:
    """Learns with the identity in all heads, with a shift in one of four, and with all pairs."""
    finder = replace(TINY, depth=3) if trial.quick else FINDER
    kinds = patterns(finder.task.length)
    models = finder.learn_each(trial, {name: Attention(HEADS, pattern=pattern) for name, pattern in kinds.items()})
    for (name, pattern), model in zip(kinds.items(), models, strict=True):
        met, reached = share_reached(pattern, finder)
        note = f"a layer meets {met:.0%} of the pairs, {finder.depth} layers reach {reached:.0%} of the markers"
        better = "lower" if name == OWN else "higher"
        yield trial.row(name, finder.accuracy(model), finder.task.chance, goal=GOALS[name], better=better, note=note)


def patterns(length: int) -> dict[str, Pattern]:
    """What is compared, for texts of that length."""
    own, following = (Permuted(-(-length // BLOCKS), BLOCKS, shift) for shift in (0, 1))
    return {OWN: own, SHIFTED: ByHead((own, own, own, following)), ALL: Everything()}


def share_reached(pattern: Pattern, finder: Finder) -> tuple[float, float]:
    """The share of all pairs of a head that meet, and of the places of markers that all layers carry to the first token."""
    at = Places.run(0, finder.task.length)
    seen = pattern.visible(queries(at), keys(at), torch.arange(HEADS)[:, None, None])[0].double()
    reached = torch.linalg.matrix_power(seen.amax(0), finder.depth)[0] > 0
    return float(seen.mean()), float(reached[finder.task.nearest : -1].double().mean())
