"""The register of experiments: cases under suite names, added by a decorator, found by name."""

import difflib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from formers.errors import FormersError
from formers.report.rows import Better, Goal, Row

if TYPE_CHECKING:
    from formers.bench.trial import Trial

Measure = Callable[["Trial"], Iterable[Row]]


@dataclass(frozen=True)
class Rival:
    """What ours is measured against: what it is, in words, and the optional package that holds it.

    extra: of ours, which installs that package together with the versions of others that it still works with.
    """

    name: str
    package: str | None = None
    extra: str | None = None

    @property
    def installed(self) -> bool:
        """Whether the rival can be measured here; one without a package always can."""
        try:
            return self.package is None or bool(importlib.metadata.version(self.package))
        except importlib.metadata.PackageNotFoundError:
            return False

    @property
    def remedy(self) -> str:
        """The note of a row whose rival is absent."""
        wanted = self.package if self.extra is None else f"'formers[{self.extra}]'"
        return f"not measured: pip install {wanted}"


@dataclass(frozen=True)
class Case:
    """One experiment: its measure yields rows, and the rest is what those rows say unless they say otherwise.

    `needs` describes the data that the user must point at, if any.
    """

    suite: str
    title: str
    measure: Measure
    unit: str
    better: Better
    rival: Rival | None
    goal: Goal | None
    needs: str | None


class Registry:
    """Suites of cases by name; `kind` is the word for them on the command line ("bench", "claim")."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._cases: list[Case] = []

    def case(
        self,
        suite: str,
        title: str,
        *,
        unit: str,
        better: Better = "higher",
        rival: Rival | None = None,
        goal: Goal | None = None,
        needs: str | None = None,
    ) -> Callable[[Measure], Measure]:
        """Register the decorated function, which takes a Trial and yields rows, as a case of a suite."""

        def register(measure: Measure) -> Measure:
            if any((other.suite, other.title) == (suite, title) for other in self._cases):
                raise FormersError(f"{self.kind} {suite} has a case {title!r} already; give this one another title.")
            self._cases.append(Case(suite, title, measure, unit, better, rival, goal, needs))
            return measure

        return register

    def suites(self) -> dict[str, tuple[Case, ...]]:
        """Every suite with its cases, in order of registration."""
        names = dict.fromkeys(case.suite for case in self._cases)
        return {name: tuple(case for case in self._cases if case.suite == name) for name in names}

    def find(self, suite: str) -> tuple[Case, ...]:
        """The cases of a suite; raises FormersError with the nearest name for one that does not exist."""
        suites = self.suites()
        if suite in suites:
            return suites[suite]
        near = difflib.get_close_matches(suite, suites, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {_listed(suites)}."
        raise FormersError(f"no {self.kind} is called {suite!r}; {hint}")

    def __iter__(self) -> Iterator[Case]:
        return iter(self._cases)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none yet"


BENCHES = Registry("bench")
CLAIMS = Registry("claim")
