"""Big Bird's claim at its smallest, and how far its patterns carry at full size."""

import io

import pytest
from rich.console import Console

from formers import claim
from formers.claim.cases.big_bird import DRAWN, STARRED, WINDOWED, patterns, reach
from formers.claim.marker_task import Finder


def test_it_compares_each_part_with_those_before_it() -> None:
    rows = claim.run("big_bird", console=Console(file=io.StringIO(), width=160), quick=True)
    values = {row.name: row.value for row in rows}
    assert list(values)[:3] == [WINDOWED, DRAWN, STARRED]
    assert values["random blocks above the window"] == pytest.approx(values[DRAWN] - values[WINDOWED])
    assert values["a global block above random ones"] == pytest.approx(values[STARRED] - values[DRAWN])
    assert [str(row.goal) for row in rows if row.goal] == [
        "value <= 0.15",
        "value >= 0.95",
        "value >= 0.1",
        "value >= 0.1",
    ]


def test_two_layers_reach_nothing_by_windows_most_by_chance_and_all_by_a_star() -> None:
    finder = Finder()
    reached = {name: reach(pattern, finder) for name, pattern in patterns(finder.task.length).items()}
    assert reached[WINDOWED] == 0
    assert 0.9 < reached[DRAWN] < 1
    assert reached[STARRED] == 1
