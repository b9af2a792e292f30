"""A measured figure: its value, its rival's value, and the goal that it meets or does not."""

import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from formers.data.atomic import write_json
from formers.errors import DataError
from formers.report.machine import Machine

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Goal:
    """A bound on the value of a figure, or on how many times better than its rival it is."""

    of: Literal["value", "ratio"]
    sense: Literal["at least", "at most"]
    bound: float

    def holds(self, measured: float) -> bool:
        """Whether the measured number keeps the bound; a number that is not one never does."""
        return measured >= self.bound if self.sense == "at least" else measured <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.sense == "at least" else "<="
        return f"{self.of} {sign} {self.bound:g}"


def ratio_at_least(times: float) -> Goal:
    """The goal of being that many times better than the rival."""
    return Goal("ratio", "at least", times)


def value_at_least(bound: float) -> Goal:
    """The goal of a value that is no smaller than a bound."""
    return Goal("value", "at least", bound)


def value_at_most(bound: float) -> Goal:
    """The goal of a value that is no larger than a bound."""
    return Goal("value", "at most", bound)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure, ours beside the rival's; a value of None was not measured, and the note says why."""

    name: str
    value: float | None
    unit: str
    better: Better = "higher"
    rival: str | None = None
    rival_value: float | None = None
    goal: Goal | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the rival ours is: above 1 ours is ahead, whichever direction is better."""
        if self.value is None or self.rival_value is None:
            return None
        over, under = (self.value, self.rival_value) if self.better == "higher" else (self.rival_value, self.value)
        return over / under if under else math.nan

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or without the measurement that would decide it."""
        measured = None if self.goal is None else getattr(self, self.goal.of)
        return None if self.goal is None or measured is None else self.goal.holds(measured)

    def to_dict(self) -> dict[str, Any]:
        """The row in plain JSON values; a number that is not finite becomes null."""
        return {
            "name": self.name,
            "value": _finite(self.value),
            "unit": self.unit,
            "better": self.better,
            "rival": self.rival,
            "rival_value": _finite(self.rival_value),
            "ratio": _finite(self.ratio),
            "goal": None if self.goal is None else str(self.goal),
            "met": self.met,
            "note": self.note,
        }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def save_rows(path: Path, title: str, rows: Iterable[Row], machine: Machine) -> None:
    """Write `{"title", "machine", "rows"}` as JSON, one row per figure; the file is never half-written."""
    write_json(path, {"title": title, "machine": machine.to_dict(), "rows": [row.to_dict() for row in rows]})


def require_writable(path: Path) -> None:
    """Raise DataError now if `path` could not be written later: an hour of measuring must not end in that."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; name another file") from error
