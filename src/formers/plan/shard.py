"""Ways to spread training over devices: what each of them holds, and what it sends."""

from collections.abc import Iterator
from dataclasses import dataclass

from formers.distributed import Distribution
from formers.plan.ledger import Bytes, highest
from formers.plan.step import Step
from formers.plan.weights import Weights
from formers.train import Adafactor, TrainSpec

NUMBER = 4  # bytes: parameters, their gradients and what is exchanged are fp32
BUCKETS = 2  # parts of a depth that are gathered at once: the one that runs and the one behind it


@dataclass(frozen=True)
class Sharding:
    """A distribution over so many devices, for a model with these parameters."""

    name: str
    distribution: Distribution
    devices: int
    weights: Weights

    @property
    def experts(self) -> int:
        return self.distribution.divide_experts

    @property
    def full(self) -> bool:
        return self.distribution.shard == "full"

    @property
    def kept(self) -> float:
        """The share of parameters, gradients and optimiser state that each device holds."""
        dense = self.weights.total - self.weights.experts
        if self.full:
            return 1 / self.devices
        return (dense + self.weights.experts / self.experts) / self.weights.total

    def held(self, step: Step) -> dict[str, Bytes]:
        """The bytes of a step on each device, by phase and purpose."""
        kept = self.kept
        shared = ("weights", "gradients", "optimizer")
        found = {}
        for phase, parts in step.peaks.items():
            held = {name: round(size * kept) if name in shared else size for name, size in parts.items()}
            found[phase] = held | ({} if phase == "update" else {"gathered": self._gathered(phase)})
        return found

    def peak(self, step: Step) -> Bytes:
        """By purpose, when they are most."""
        return highest(list(self.held(step).values()))

    def sent(self, tokens: int, pieces: int) -> tuple[float, float]:
        """Bytes that each device sends in a step of so many tokens on it: while it computes, and while it waits.

        Sums and gatherings go round in a ring (Patarasuk and Yuan 2009), behind passes; a token that goes to an expert is
        waited for, there and back, in both passes.
        """
        weights, n, ways = self.weights, self.devices, self.experts
        groups = n // ways
        dense, experts = weights.total - weights.experts, weights.experts / ways
        rounds = 3 * pieces if self.full else 2  # gathered, gathered again, summed; or summed and handed out
        ring = rounds * NUMBER * (dense * (n - 1) / n + experts * (groups - 1) / groups)
        seats = 4 * NUMBER * tokens * weights.seats * (ways - 1) / ways
        return ring, seats

    def _gathered(self, phase: str) -> int:
        """Parameters that lie on a device whole while they run, with one part's gradients on the way back."""
        if not self.full:
            return 0
        largest = self.weights.largest - self.weights.largest_experts * (1 - 1 / self.experts)
        parts = BUCKETS * largest + self.weights.rest + (0 if phase == "forward" else largest)
        return round(NUMBER * parts * (1 - 1 / self.devices))


def shardings(weights: Weights, experts: int, devices: int, training: TrainSpec) -> Iterator[Sharding]:
    """Those that `formers train` has for a model, the simplest first. experts: in each of its mixtures, 0: none."""
    if devices == 1:
        yield Sharding("one device", Distribution(), 1, weights)
        return
    ways = max(n for n in range(1, devices + 1) if devices % n == 0 and experts % n == 0) if experts else 1
    full = not isinstance(training.optimizer, Adafactor)  # which scales a step by whole matrices
    yield Sharding("data parallel", Distribution(), devices, weights)
    if ways > 1:
        yield Sharding(f"experts over {ways}", Distribution(divide_experts=ways), devices, weights)
    if full:
        yield Sharding("full shard", Distribution(shard="full"), devices, weights)
    if full and ways > 1:
        told = f"full shard, experts over {ways}"
        yield Sharding(told, Distribution(shard="full", divide_experts=ways), devices, weights)
