"""Reformer's duplication task: a model that learned with hashing copies, and more hashes at evaluation help."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from torch import nn

from formers.attention import LSH, Attention, SharedQK
from formers.bench.registry import CLAIMS, Rival
from formers.bench.trial import Trial
from formers.claim.copy_task import TINY, Copier, Copying, Reading, token_by_token
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
LEARNED = 0.5  # of an accuracy, which is 1 / 127 at chance


@dataclass(frozen=True)
class Setting:
    """Sizes: of the copier, of its hashing, of whom it is learned with, and how often, each time from other words."""

    copier: Copier = Copier(Copying(word=63, rows=16), steps=800)
    chunk: int = 16
    trained: tuple[int | None, ...] = TRAINED
    draws: int = 5
    buckets: int = 16  # of strict hashing

    def attention(self, rounds: int | None, **hashing: Any) -> Attention:
        """Shared queries and keys in two heads, hashed or not; of the same parameters."""
        alike = Attention(2, position=SelfLast(), projection=SharedQK(), scale=1.0)
        if rounds is FULL:
            return alike
        always: dict[str, Any] = {"plain_below": 0}  # so short a text would not be hashed
        return alike.replace(select=LSH(self.chunk, rounds, **always | hashing))

    def learn(self, rounds: int | None, tick: Callable[[], object]) -> list[nn.Module]:
        """A model from each draw."""
        copiers = [replace(self.copier, task=replace(self.copier.task, seed=seed)) for seed in range(self.draws)]
        return [copier.learn(self.attention(rounds), tick) for copier in copiers]

    def accuracies(self, models: list[nn.Module], attention: Attention, read: Reading | None = None) -> list[float]:
        """Of each model with that attention in place of its own."""
        return [self.copier.accuracy(model, attention, read) for model in models]


@CLAIMS.case(
    "reformer",
    'the duplication task "0w0w" of arXiv:2001.04451: 63 of 127 symbols twice, 2 layers, dim 64, chunks of 16',
    unit="accuracy",
    rival=PAPER,
)
def reformer(trial: Trial) -> Iterator[Row]:
    """Learns with all pairs and with 4, 2 and 1 hashes, and evaluates each with all pairs and with 8, 4, 2 and 1.

    Medians of some draws, since one either learns to copy or stays at chance.
    """
    setting = Setting(TINY, 4, (FULL, 4), draws=2) if trial.quick else Setting()
    found: dict[int | None, dict[int | None, list[float]]] = {}
    with trial.progress("", setting.copier.steps * len(setting.trained) * setting.draws) as tick:
        for trained in setting.trained:
            tick(0, f"learning with {told(trained)}")
            models = setting.learn(trained, tick)
            found[trained] = {rounds: setting.accuracies(models, setting.attention(rounds)) for rounds in EVALUATED}
            for rounds, theirs in zip(EVALUATED, REPORTED[trained], strict=True):
                goal = value_at_least(0.95) if (trained, rounds) == (4, 8) else None
                name = f"trained with {told(trained)}, evaluated with {told(rounds)}"
                yield trial.row(name, median(found[trained][rounds]), theirs, goal=goal)
            learned = sum(accuracy > LEARNED for accuracy in found[trained][FULL])
            name = f"trained with {told(trained)}: draws of {setting.draws} that learned the task"
            yield trial.row(name, learned, unit="draws", rival=None)
            if trained == 4:
                yield from by_what_has_come(trial, setting, models)
    yield from differences(trial, found)


def differences(trial: Trial, found: dict[int | None, dict[int | None, list[float]]]) -> Iterator[Row]:
    """What the table says, at the median and in each of the draws."""
    hashed = [median(found[4][rounds]) for rounds in EVALUATED if rounds is not FULL]
    worst = max(fewer - more for more, fewer in itertools.pairwise(hashed))
    name = "trained with 4 hashes: the most that fewer hashes gain"
    yield trial.row(name, max(0.0, worst), better="lower", rival=None, goal=value_at_most(NOISE))
    for name, more, less in (
        ("trained with all pairs: what 1 hash loses", found[FULL][FULL], found[FULL][1]),
        ("evaluated with 1 hash: what training with 4 hashes gains", found[4][1], found[FULL][1]),
    ):
        each = [one - other for one, other in zip(more, less, strict=True)]
        note = f"in the draws {', '.join(f'{gain:.3f}' for gain in each)}"
        yield trial.row(name, median(each), rival=None, goal=value_at_least(CLEARLY), note=note)


def by_what_has_come(trial: Trial, setting: Setting, models: list[nn.Module]) -> Iterator[Row]:
    """What it costs to know the past alone, and that strict hashing knows no more in one pass either."""
    strict = setting.attention(4, buckets=setting.buckets, strict=True, plain_below=None)
    for name, attention in (("hashing", setting.attention(4)), ("strict hashing", strict)):
        for manner, read in (("in one pass", None), ("token by token", token_by_token)):
            accuracy = median(setting.accuracies(models, attention, read))
            yield trial.row(f"4 hashes, {name}, {manner}", accuracy, rival=None)
        name = f"4 hashes, {name}: earlier tokens that another last one changes"
        goal = value_at_most(0) if attention is strict else None
        share = median([setting.copier.moved(model, attention) for model in models])
        yield trial.row(name, share, unit="share", better="lower", rival=None, goal=goal)


def told(rounds: int | None) -> str:
    """A number of hashes in words."""
    return "all pairs" if rounds is FULL else "1 hash" if rounds == 1 else f"{rounds} hashes"
