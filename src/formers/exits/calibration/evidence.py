"""How sure a risk is to be small: Learn-then-Test with a fixed sequence. Angelopoulos et al. 2021, arXiv:2110.01052."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from formers.errors import ConfigError, DataError

Tick = Callable[[float], None]


@dataclass(frozen=True)
class Promise:
    """The mean loss of a new text is at most `risk`, and that holds for a share `confidence` of all calibrations.

    risk: the paper's delta, of losses between 0 and 1. confidence: 1 - epsilon, epsilon being the chance that the texts of
    the calibration mislead.
    """

    risk: float
    confidence: float

    def __post_init__(self) -> None:
        for name, value in (("risk", self.risk), ("confidence", self.confidence)):
            if not 0 < value < 1:
                raise ConfigError(f"a {name} lies between 0 and 1, and not at either: got {value}")

    @property
    def epsilon(self) -> float:
        return 1 - self.confidence

    @property
    def needed(self) -> int:
        """The fewest texts that can show it, if not one of them loses anything: (1 - risk)^n <= epsilon."""
        return math.ceil(math.log(self.epsilon) / math.log1p(-self.risk) - 1e-9)

    def require(self, count: int) -> None:
        """Raise DataError unless so many texts can show it."""
        if count < self.needed:
            what = f"{count} texts cannot show a risk of {self.risk} with a confidence of {self.confidence}"
            raise DataError(f"{what}, even if not one loses anything: give {self.needed} or more, or ask for less")


def p_value(mean: float, count: int, risk: float) -> float:
    """The chance, at most, to see so small a mean of `count` losses in [0, 1] where their risk is above `risk`.

    The Hoeffding-Bentkus bound (Bates et al. 2021, arXiv:2101.02703): the smaller of exp(-n h(min(mean, risk), risk)), h
    being the divergence of two coins, and e times the chance of at most ceil(n mean) heads of n coins that show heads
    with probability `risk`.
    """
    hoeffding = math.exp(-count * divergence(min(mean, risk), risk))
    bentkus = math.e * binomial_tail(math.ceil(count * mean - 1e-9), count, risk)
    return min(1.0, hoeffding, bentkus)


def divergence(a: float, b: float) -> float:
    """a log(a / b) + (1 - a) log((1 - a) / (1 - b)), of a coin from another."""
    first = a * math.log(a / b) if a > 0 else 0.0
    return first + ((1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0)


def binomial_tail(most: int, count: int, chance: float) -> float:
    """The chance of at most `most` heads of `count` coins, each showing heads with probability `chance`."""
    logs = (math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(most + 1))
    return math.fsum(
        math.exp(ways + k * math.log(chance) + (count - k) * math.log1p(-chance)) for k, ways in enumerate(logs)
    )


class Found(NamedTuple):
    """What a threshold does on the texts of a calibration: their losses, one number in [0, 1] for each text, how many
    blocks a token runs through in the mean, and the texts, where they are written."""

    losses: Sequence[float]
    mean_exit: float
    texts: Sequence[list[int]] = ()


class Tried(NamedTuple):
    """A threshold, the mean loss at it, the p-value of its risk being above the promised one, and the mean exit."""

    threshold: float
    risk: float
    p: float
    mean_exit: float


@dataclass(frozen=True)
class Calibration:
    """Every threshold that was tried, from the highest down, the last of which may be the first that failed; and what was
    promised, of so many texts. threshold: the lowest that holds before any failed; None: not even the highest holds."""

    promise: Promise
    texts: int
    tried: tuple[Tried, ...]

    @property
    def threshold(self) -> float | None:
        held = [tried.threshold for tried in self.tried if tried.p <= self.promise.epsilon]
        return held[-1] if held else None

    @property
    def chosen(self) -> Tried | None:
        return next((tried for tried in self.tried if tried.threshold == self.threshold), None)


def walk_down(
    find: Callable[[float], Found], thresholds: Sequence[float], promise: Promise, tick: Tick = lambda done: None
) -> Calibration:
    """Test the thresholds from the highest down, and stop at the first one of which the promise cannot be shown.

    The thresholds must not depend on the texts. To go on behind a failure, and take the lowest threshold that passes,
    would break the promise: one test in 1 / epsilon passes by chance. Raises ConfigError unless the thresholds fall, and
    DataError where there are too few texts for any of them to pass.
    """
    if not thresholds or any(low >= high for high, low in itertools.pairwise(thresholds)):
        raise ConfigError(f"thresholds are tried from the highest down, each once; got {list(thresholds)}")
    tried: list[Tried] = []
    count = 0
    for number, threshold in enumerate(thresholds):
        found = find(threshold)
        count = len(found.losses)
        promise.require(count)
        mean = math.fsum(found.losses) / count
        tried.append(Tried(threshold, mean, p_value(mean, count, promise.risk), found.mean_exit))
        tick((number + 1) / len(thresholds))
        if tried[-1].p > promise.epsilon:
            break
    return Calibration(promise, count, tuple(tried))
