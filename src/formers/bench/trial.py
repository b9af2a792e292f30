"""What a case is handed when it is run: its settings, a stopwatch, progress, and rows in the case's own terms."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from formers.bench.memory import in_fresh_process
from formers.bench.race import Duel, race, race_made
from formers.bench.registry import Case
from formers.errors import DataError
from formers.report.rows import Row


@dataclass(frozen=True)
class Trial:
    """One run of one case.

    `quick` asks for the smallest shapes that still exercise every line; `data` is what the user pointed at;
    `folder` is where a case leaves files (created when first asked for by `keep`).
    """

    case: Case
    console: Console
    quick: bool = False
    data: Path | None = None
    folder: Path = Path("runs")

    def require_data(self) -> Path:
        """The path that the user gave; raises DataError, saying what is needed, where there is none."""
        if self.data is None:
            raise DataError(f"{self.case.suite} needs data; give it with --data: {self.case.needs}.")
        if not self.data.exists():
            raise DataError(f"{self.data} does not exist; give --data {self.case.needs}.")
        return self.data

    def keep(self, name: str) -> Path:
        """The path of a file that this case leaves behind."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.folder} cannot be made: {error.strerror}; choose another with --out.") from error
        return self.folder / name

    def duel(
        self,
        ours: Callable[[], object],
        make_rival: Callable[[], Callable[[], object]],
        *,
        warmup: int = 2,
        rounds: int = 9,
    ) -> Duel:
        """Time ours against the case's rival in turns; the rival is only made where it is installed."""
        contestants = {"ours": ours}
        if self._has_rival:
            contestants["rival"] = make_rival()
        warmup, rounds = (1, 1) if self.quick else (warmup, rounds)
        with self.progress(self.case.title, (warmup + rounds) * len(contestants)) as tick:
            seconds = race(contestants, warmup=warmup, rounds=rounds, tick=tick)
        return Duel(seconds["ours"], seconds.get("rival"))

    def duel_apart(
        self,
        make_ours: Callable[[], Callable[[], object]],
        make_rival: Callable[[], Callable[[], object]],
        *,
        warmup: int,
        rounds: int,
    ) -> Duel:
        """`duel` in a process of its own, to which earlier cases have left no memory. Both are functions of modules."""
        makers = {"ours": make_ours} | ({"rival": make_rival} if self._has_rival else {})
        warmup, rounds = (1, 1) if self.quick else (warmup, rounds)
        with self.progress(self.case.title, 1):
            seconds = in_fresh_process(race_made, makers, warmup, rounds, give_back=False)
        return Duel(seconds["ours"], seconds.get("rival"))

    @property
    def _has_rival(self) -> bool:
        return self.case.rival is not None and self.case.rival.installed

    def row(self, name: str, value: float | None, rival_value: float | None = None, **changes: Any) -> Row:
        """A row with the case's unit, direction, rival and goal, any of which `changes` may replace."""
        rival = self.case.rival
        row = Row(
            name=name,
            value=value,
            unit=self.case.unit,
            better=self.case.better,
            rival=None if rival is None else rival.name,
            rival_value=rival_value,
            goal=self.case.goal,
            note="" if rival is None or rival.installed else rival.remedy,
        )
        return replace(row, **changes)

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[..., None]]:
        """A progress bar; the function that it gives counts one step on, and may be told a new description."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(description, total=total)

            def tick(steps: int = 1, description: str | None = None) -> None:
                bar.update(task, advance=steps, description=description)

            yield tick
