"""Timing contestants in turns, so that whatever else the machine does hits all of them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median


def race(
    contestants: Mapping[str, Callable[[], object]],
    *,
    warmup: int,
    rounds: int,
    tick: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of one call of each contestant: `warmup` untimed turns each, then `rounds` turns A B A B ..."""
    for _ in range(warmup):
        for run in contestants.values():
            run()
            tick()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            start = clock()
            run()
            seconds[name].append(clock() - start)
            tick()
    return {name: median(times) for name, times in seconds.items()}


def race_made(makers: Mapping[str, Callable[[], Callable[[], object]]], warmup: int, rounds: int) -> dict[str, float]:
    """`race` of contestants that are made here, as in a process of their own."""
    return race({name: make() for name, make in makers.items()}, warmup=warmup, rounds=rounds)


def relay(
    runners: Mapping[str, Callable[[], object]],
    *,
    steps: int,
    lap: int,
    tick: Callable[[int], object] = lambda steps: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Seconds that each runner takes for `steps` calls at the pace of its median lap; all go on in turns of `lap` calls.

    A total would be of whatever else the machine did meanwhile: one slow lap of two hundred can turn a comparison.
    """
    paces: dict[str, list[float]] = {name: [] for name in runners}
    for done in range(0, steps, lap):
        count = min(lap, steps - done)
        for name, run in runners.items():
            start = clock()
            for _ in range(count):
                run()
            paces[name].append((clock() - start) / count)
        tick(count)
    return {name: steps * median(pace) for name, pace in paces.items()}


@dataclass(frozen=True)
class Duel:
    """Median seconds of ours and of the rival (None where there is no rival to measure)."""

    ours: float
    rival: float | None

    def rate(self, work: float) -> tuple[float, float | None]:
        """Work per second, ours and the rival's, where one call does that much work."""
        return work / self.ours, None if self.rival is None else work / self.rival

    def milliseconds(self, work: float = 1.0) -> tuple[float, float | None]:
        """Milliseconds per unit of work, ours and the rival's."""
        return 1e3 * self.ours / work, None if self.rival is None else 1e3 * self.rival / work
