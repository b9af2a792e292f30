"""Reformer's duplication task: a model that learned with hashing copies, and more hashes at evaluation help."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from formers.attention import LSH, Attention, SharedQK
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.claim.copy_task import TINY, Copier, Copying
from formers.position import SelfLast
from formers.report.rows import Row, value_at_least, value_at_most

FULL = None  # in place of a number of rounds: every pair meets
TRAINED = (FULL, 4, 2, 1)
EVALUATED = (FULL, 8, 4, 2, 1)
PAPER = Rival("what the paper's table 2 reports of one layer, dim 256, words of 511 symbols, 150,000 steps")
REPORTED = {
    FULL: (1.0, 0.948, 0.925, 0.769, 0.525),
    4: (0.008, 1.0, 0.999, 0.994, 0.919),
    2: (0.008, 1.0, 0.999, 0.981, 0.868),
    1: (0.008, 0.999, 0.996, 0.948, 0.779),
}
NOISE = 0.01  # of an accuracy over some 16,000 symbols, generously
CLEARLY = 0.02


@dataclass(frozen=True)
class Setting:
    """Sizes: of the copier, of its hashing, and of whom it is learned with."""

    copier: Copier = Copier(Copying(word=63, rows=16), steps=500)
    chunk: int = 16
    trained: tuple[int | None, ...] = TRAINED

    def attention(self, rounds: int | None) -> Attention:
        """Shared queries and keys in two heads, hashed or not; of the same parameters."""
        alike = Attention(2, position=SelfLast(), projection=SharedQK(), scale=1.0)
        if rounds is FULL:
            return alike
        return alike.replace(select=LSH(self.chunk, rounds, plain_below=0))  # so short a text would be


@CLAIMS.case(
    "reformer",
    'the duplication task "0w0w" of arXiv:2001.04451: 63 of 127 symbols twice, 2 layers, dim 64, chunks of 16',
    unit="accuracy",
    rival=PAPER,
)
def reformer(trial: Trial) -> Iterator[Row]:
    """Learns with all pairs and with 4, 2 and 1 hashes, and evaluates each with all pairs and with 8, 4, 2 and 1."""
    setting = Setting(TINY, 4, (FULL, 4)) if trial.quick else Setting()
    learners = {f"learning with {told(rounds)}": setting.attention(rounds) for rounds in setting.trained}
    models = setting.copier.learn_each(trial, learners)
    found: dict[int | None, dict[int | None, float]] = {}
    for trained, model in zip(setting.trained, models, strict=True):
        found[trained] = {rounds: setting.copier.accuracy(model, setting.attention(rounds)) for rounds in EVALUATED}
        for rounds, theirs in zip(EVALUATED, REPORTED[trained], strict=True):
            goal = value_at_least(0.95) if (trained, rounds) == (4, 8) else None
            name = f"trained with {told(trained)}, evaluated with {told(rounds)}"
            yield trial.row(name, found[trained][rounds], theirs, goal=goal)
    hashed = [found[4][rounds] for rounds in EVALUATED if rounds is not FULL]
    worst = max(fewer - more for more, fewer in itertools.pairwise(hashed))
    yield trial.row(
        "trained with 4 hashes: the most that fewer hashes gain",
        max(0.0, worst),
        better="lower",
        rival=None,
        goal=value_at_most(NOISE),
    )
    for name, difference in (
        ("trained with all pairs: what 1 hash loses", found[FULL][FULL] - found[FULL][1]),
        ("evaluated with 1 hash: what training with 4 hashes gains", found[4][1] - found[FULL][1]),
    ):
        yield trial.row(name, difference, rival=None, goal=value_at_least(CLEARLY))


def told(rounds: int | None) -> str:
    """A number of hashes in words."""
    return "all pairs" if rounds is FULL else "1 hash" if rounds == 1 else f"{rounds} hashes"
