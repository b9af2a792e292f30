"""Plans of training: every sharding with what it takes, and the fastest that fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from formers.encoder_decoder import EncoderDecoder
from formers.errors import ConfigError
from formers.experts import Switch
from formers.plan.depth import extrapolated
from formers.plan.ledger import Bytes
from formers.plan.setup import Setup
from formers.plan.shard import Sharding, shardings
from formers.plan.step import Step, traced_step
from formers.plan.weights import weights_of
from formers.recomputed import Recomputed
from formers.report.cost import cost
from formers.reversible import Reversible
from formers.spec import check
from formers.spec.core import parts_within
from formers.train import TrainSpec

ALIKE = 1.05  # times are not told apart more closely than this


@dataclass(frozen=True)
class Candidate:
    """A way to train. memory: bytes on each device at their highest, by purpose. sent: bytes from each device in a step.

    compute, moving, sending, waiting: seconds of a step at the speeds taken: products of matrices; reads and writes of
    memory; exchange that goes on meanwhile; and exchange that is waited for.
    """

    sharding: Sharding
    recomputed: bool
    pieces: int
    memory: Bytes
    sent: float
    compute: float
    moving: float
    sending: float
    waiting: float

    @property
    def total(self) -> int:
        return sum(self.memory.values())

    @property
    def seconds(self) -> float:
        """Of a step, if everything that can overlap does."""
        return max(self.compute, self.moving, self.sending) + self.waiting

    @property
    def name(self) -> str:
        told = [self.sharding.name]
        told += ["recomputed"] if self.recomputed else []
        told += [f"{self.pieces} pieces"] if self.pieces > 1 else []
        return ", ".join(told)


@dataclass(frozen=True)
class TrainingPlan:
    """All candidates that were looked at. parameters: all, and active: those that a token meets."""

    setup: Setup
    training: TrainSpec
    parameters: int
    active: int
    operations: float
    candidates: tuple[Candidate, ...]

    def fits(self, candidate: Candidate) -> bool:
        return candidate.total <= self.setup.usable

    @property
    def best(self) -> Candidate | None:
        """The fastest that fits, or what is simpler and all but as fast."""
        fitting = [candidate for candidate in self.candidates if self.fits(candidate)]
        fastest = min((candidate.seconds for candidate in fitting), default=0.0)
        return next((candidate for candidate in fitting if candidate.seconds <= ALIKE * fastest), None)


def plan_training(setup: Setup, training: TrainSpec) -> TrainingPlan:
    """What training takes, from the spec alone.

    Raises ConfigError for rows that the model cannot read, or that devices cannot share out.
    """
    setup.require_length(training.length)
    setup.require_rows(training)
    return _Planner(setup, training).plan()


class _Planner:
    def __init__(self, setup: Setup, training: TrainSpec) -> None:
        self._setup, self._training = setup, training
        self._spec = {False: setup.spec, True: recomputing(setup.spec)}
        self._steps: dict[tuple[bool, int], Step] = {}
        self._weights = weights_of(setup.spec)

    def plan(self) -> TrainingPlan:
        candidates = tuple(self._candidates())
        costs, weights = self._costs, self._weights
        active = min(weights.total, round(costs["weights"] / 4))
        return TrainingPlan(self._setup, self._training, weights.total, active, costs["operations"], candidates)

    def _candidates(self) -> Iterator[Candidate]:
        """Each sharding as it is and recomputed; where neither fits, in so many pieces that one does."""
        experts = max((part.experts for part in parts_within(self._setup.spec) if isinstance(part, Switch)), default=0)
        ways = [False, True] if self._spec[True] is not None else [False]
        for sharding in shardings(self._weights, experts, self._setup.devices, self._training):
            first = [self._candidate(sharding, way, self._training.accumulation) for way in ways]
            yield from first
            if not any(self._fits(candidate) for candidate in first):
                yield from (found for way in ways if (found := self._in_pieces(sharding, way)) is not None)

    def _in_pieces(self, sharding: Sharding, recomputed: bool) -> Candidate | None:
        """With the fewest pieces with which it fits; where it never does, as small as it gets. None: it is that small."""
        rows = self._training.batch // self._setup.devices
        more = [n for n in range(self._training.accumulation + 1, rows + 1) if rows % n == 0]
        if not more:
            return None
        smallest = self._candidate(sharding, recomputed, more[-1])
        if not self._fits(smallest):
            return smallest
        largest = self._candidate(sharding, recomputed, self._training.accumulation)
        waiting = sharding.peak(self._step(recomputed, more[-1])).get("gradients", 0)
        slope = (largest.total - smallest.total) / (rows / self._training.accumulation - rows / more[-1])
        for pieces in more[:-1]:  # what is surely too large by its rows alone is not worked out
            guess = smallest.total + slope * (rows / pieces - rows / more[-1])
            if guess - waiting <= self._setup.usable and self._fits(self._candidate(sharding, recomputed, pieces)):
                return self._candidate(sharding, recomputed, pieces)
        return smallest

    def _fits(self, candidate: Candidate) -> bool:
        return candidate.total <= self._setup.usable

    def _candidate(self, sharding: Sharding, recomputed: bool, pieces: int) -> Candidate:
        setup, training, costs = self._setup, self._training, self._costs
        step = self._step(recomputed, pieces)
        tokens = training.batch // setup.devices * training.length
        again = costs["operations"] if recomputed else costs["recomputed"]
        ring, seats = sharding.sent(tokens, pieces)
        return Candidate(
            sharding,
            recomputed,
            pieces,
            sharding.peak(step),
            ring + seats,
            compute=tokens * (3 * costs["operations"] + again) / setup.speed(training.precision),
            moving=(step.passes + sharding.kept * step.update) / setup.device.bandwidth,
            sending=ring / setup.device.link,
            waiting=seats / setup.device.link,
        )

    def _step(self, recomputed: bool, pieces: int) -> Step:
        if (recomputed, pieces) not in self._steps:
            rows = self._training.batch // self._setup.devices
            local = self._training.replace(batch=rows, accumulation=pieces)
            self._steps[recomputed, pieces] = traced_step(
                self._spec[recomputed], local, gpu=self._setup.device.name != "cpu"
            )
        return self._steps[recomputed, pieces]

    @cached_property
    def _costs(self) -> dict[str, float]:
        """Of one token: operations of a pass, those that training runs again, and bytes of weights that it meets."""

        def priced(spec: Any) -> dict[str, float]:
            found = cost(spec, self._training.length)
            total = found.total
            return {"operations": total.operations, "recomputed": found.recomputed, "weights": total.weights}

        return extrapolated(priced, self._setup.spec)


def recomputing(spec: Any) -> Any:
    """The same model, each block of whose depth is recomputed; None where that would change nothing, or cannot be."""
    if any(isinstance(part, (Reversible, Recomputed)) for part in parts_within(spec)):
        return None
    if isinstance(spec, EncoderDecoder):
        source, target = (side.replace(blocks=(Recomputed(side.blocks),)) for side in (spec.source, spec.target))
        changed = spec.replace(source=source, target=target)
    else:
        changed = spec.replace(blocks=(Recomputed(spec.blocks),))
    side = changed.target if isinstance(changed, EncoderDecoder) else changed
    try:
        check(changed, side.site, changed.name)
    except ConfigError:
        return None
    return changed
