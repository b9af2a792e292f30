"""Learning-rate schedules: pure functions of the step, as factors of the optimiser's learning rate."""

import math
from collections.abc import Iterator

from formers.spec import Site, Spec


class Constant(Spec):
    """A linear rise over `warm_up` steps, then the full rate."""

    warm_up: int = 0

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from _warm_up_problems(self.warm_up, 0)

    def factor(self, step: int, steps: int) -> float:
        """The factor of update `step` of `steps`, counted from 1."""
        return _rise(step, self.warm_up)


class CosineDecay(Spec):
    """A linear rise over `warm_up` steps, then half a cosine down to `floor` at the last step (arXiv:1608.03983)."""

    warm_up: int = 100
    floor: float = 0.1

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from _warm_up_problems(self.warm_up, 0)
        if not 0 <= self.floor <= 1:
            yield f"floor is a fraction of the learning rate, and {self.floor} is none", "floor=0.1"

    def factor(self, step: int, steps: int) -> float:
        """The factor of update `step` of `steps`, counted from 1."""
        if step <= self.warm_up:
            return _rise(step, self.warm_up)
        progress = min(1.0, (step - self.warm_up) / max(1, steps - self.warm_up))
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * progress)) / 2


class InverseSquareRoot(Spec):
    """A linear rise over `warm_up` steps, then sqrt(warm_up / step): the shape of "Attention Is All You Need".

    The rate of arXiv:1706.03762, dim^-0.5 min(step^-0.5, step warm_up^-1.5), has its peak at step `warm_up`; the
    optimiser's learning rate is that peak, which `vanilla_peak` gives.
    """

    warm_up: int = 4000

    def problems(self, site: Site) -> Iterator[tuple[str, str]]:
        yield from _warm_up_problems(self.warm_up, 1)

    def factor(self, step: int, steps: int) -> float:
        """The factor of update `step` of `steps`, counted from 1."""
        return min(step / self.warm_up, math.sqrt(self.warm_up / step))


Schedule = Constant | CosineDecay | InverseSquareRoot


def vanilla_peak(dim: int, warm_up: int) -> float:
    """The learning rate at the peak of the vanilla Transformer's schedule (arXiv:1706.03762, equation 3)."""
    return (dim * warm_up) ** -0.5


def _rise(step: int, warm_up: int) -> float:
    return min(1.0, step / warm_up) if warm_up else 1.0


def _warm_up_problems(warm_up: int, least: int) -> Iterator[tuple[str, str]]:
    if warm_up < least:
        yield f"warm_up={warm_up} counts steps, and must be at least {least}", f"warm_up={max(100, least)}"
