"""The bench of the memory at its smallest: steps with one over steps without, in exact and in approximate search."""

import io

import pytest
from rich.console import Console

from formers.bench.cases import memorizing
from formers.bench.registry import BENCHES
from formers.bench.trial import Trial


@pytest.fixture
def trial() -> Trial:
    (case,) = (case for case in BENCHES if case.measure is memorizing.step_with_a_memory)
    return Trial(case, Console(file=io.StringIO()), quick=True)


def test_both_searches_are_held_against_no_memory(trial: Trial) -> None:
    rows = list(memorizing.step_with_a_memory(trial))
    assert [row.name for row in rows] == ["exact search", "approximate search"]
    assert all(row.value > 0 and str(row.goal) == "value <= 2" for row in rows)
    assert all((row.rival_value is not None) == memorizing.PACKAGE.installed for row in rows)


def test_the_memory_is_full_from_the_first_step_on() -> None:
    reader = memorizing.TINY.ours(memorizing.ExactSearch())
    for _ in range(2):
        reader()
        places = reader.state.blocks[memorizing.TINY.layer - 1][0].store.places
        assert places.length == memorizing.TINY.memory
        assert places.start + places.length == reader.state.seen
